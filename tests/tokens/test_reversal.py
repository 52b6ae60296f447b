"""Word reversal loses nothing and is its own inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokens.reversal import reorder, reverse_words


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        ("The cat is sleeping.", "sleeping. is cat The"),
        ("Once upon a time.\nThe end.", "end. The\ntime. a upon Once"),
        ("a\n\n  b c", "c b  \n\na"),
        ("", ""),
        (" ", " "),
        ("tab\tstays here", "here tab\tstays"),
        ("Identity the odd one out. Twitter, Instagram, Telegram", "Telegram Instagram, Twitter, out. one odd the Identity"),
    ],
)
def test_examples_in_both_directions(forward: str, backward: str) -> None:
    assert reverse_words(forward) == backward
    assert reverse_words(backward) == forward


@given(st.text())
def test_reversing_twice_gives_the_text_back(text: str) -> None:
    assert reverse_words(reverse_words(text)) == text


@given(st.text(alphabet="ab \n\r\t\u2028\u00a0,", max_size=60))
def test_reversal_moves_words_and_keeps_every_character(text: str) -> None:
    backward = reverse_words(text)
    assert sorted(backward) == sorted(text)
    assert [line.split(" ") for line in backward.split("\n")] == [line.split(" ")[::-1] for line in text.split("\n")][::-1]


@given(st.lists(st.text(alphabet=st.characters(blacklist_categories=("Z", "C")), min_size=1)))
def test_single_spaced_text_is_reversed_as_published(words: list[str]) -> None:
    text = " ".join(words)
    assert reverse_words(text) == " ".join(text.split()[::-1])


def test_reorder_reverses_only_backward_text() -> None:
    assert reorder("a b", "backward") == "b a"
    assert reorder("a b", "forward") == "a b"
