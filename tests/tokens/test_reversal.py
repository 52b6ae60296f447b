"""Word reversal loses nothing and is its own inverse."""

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokens import reversal
from tokens.reversal import reorder, reorder_all, reverse_words


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


@given(
    st.lists(st.text(alphabet=" \n\rabé日🙂", max_size=40) | st.text(st.characters(exclude_categories=["Cs"])), max_size=6),
    st.sampled_from([1, 2, 7, 1 << 16]),
)
def test_many_texts_at_once_are_reversed_as_each_alone(texts: list[str], block_bytes: int) -> None:
    with mock.patch.object(reversal, "BLOCK_BYTES", block_bytes):
        backward = reorder_all([text.encode() for text in texts], "backward")
    assert [text.decode() for text in backward] == [reverse_words(text) for text in texts]
    assert reorder_all([text.encode() for text in texts], "forward") == [text.encode() for text in texts]
