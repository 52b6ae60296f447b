"""Texts with a given part: which words are written, and what a terminal shows of them."""

from hypothesis import given
from hypothesis import strategies as st

from system.passages import GIVEN_STYLE, Passage, given_characters

TEXT = st.text(st.sampled_from("ab \n"), max_size=30)


@given(TEXT, TEXT, st.integers(0, 9), st.booleans())
def test_the_words_nearest_to_the_given_part_are_kept(written: str, given_text: str, count: int, grows_left: bool) -> None:
    text = written + given_text if grows_left else given_text + written
    passage = Passage(text, len(given_text), grows_left)
    kept = passage.keep_words(count)
    assert passage.words == len(written.split())
    assert kept.words == min(count, passage.words)
    assert text.endswith(kept.text) if grows_left else text.startswith(kept.text)
    assert passage.keep_words(passage.words) == passage


def test_a_broken_outermost_word_goes_unless_it_is_the_only_one() -> None:
    assert Passage("ne day the cat sleeps", 6, True).without_broken_word().text == "day the cat sleeps"
    assert Passage("the cat sleeps and drea", 14, False).without_broken_word().text == "the cat sleeps and"
    assert Passage("ay sleeps", 6, True).without_broken_word().text == "ay sleeps"


def test_the_given_part_has_a_style_of_its_own_on_every_line() -> None:
    lines = Passage("one two three four", 10, True).lines(9)
    assert [line.plain for line in lines] == ["one two", "three", "four"] or [line.plain for line in lines] == ["one", "two three", "four"]
    styled = ["".join(line.plain[span.start : span.end] for span in line.spans if span.style == GIVEN_STYLE) for line in lines]
    assert "".join(styled) == "threefour"


def test_control_characters_and_broken_ones_are_not_shown() -> None:
    [line] = Passage("\ufffd\x1b[2J a", 1, True).lines(40)
    assert line.plain == "␛[2J a"
    assert [line.plain for line in Passage("", 0, True).lines(40)] == [" "]


def test_how_much_of_a_text_was_given() -> None:
    assert given_characters("once the end", "the end", True) == 7
    assert given_characters("the end of it", "the end", False) == 7
    assert given_characters("What is it?", "", True) == 0
