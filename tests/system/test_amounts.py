"""Amounts in words."""

from system.amounts import amount


def test_one_of_a_thing_has_no_s() -> None:
    assert [amount(count, "row") for count in (0, 1, 2, 1234, 1.0, 1.5)] == ["0 rows", "1 row", "2 rows", "1,234 rows", "1 row", "1.5 rows"]
    assert [amount(count, "retry", "retries") for count in (1, 2)] == ["1 retry", "2 retries"]
