"""Numbers of things."""

from system.counts import count_of


def test_one_is_singular() -> None:
    assert [count_of(count, "text") for count in (0, 1, 2000)] == ["0 texts", "1 text", "2,000 texts"]
