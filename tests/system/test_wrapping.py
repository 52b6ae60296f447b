"""Lines fit, hold the whole text, and those that stand do not change while it grows."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sampling.prompt_settings import HELP
from system.wrapping import hanging_indent, spans_from_end, spans_from_start

WORDS = st.lists(st.sampled_from(["a", "the", "cat", "sleeping.", "日本語", "🙂", "", "extraordinarily-long-word", "\n"]), max_size=40).map(
    " ".join
)
WORD = st.sampled_from(["a", "cat", "sleeping.", "日本語"])


def from_end(text: str, width: int) -> list[str]:
    return [text[start:end] for start, end in spans_from_end(text, width)]


def from_start(text: str, width: int) -> list[str]:
    return [text[start:end] for start, end in spans_from_start(text, width)]


@given(WORDS, st.integers(4, 30))
def test_lines_fit_and_contain_the_whole_text(text: str, width: int) -> None:
    for lines in (from_end(text, width), from_start(text, width)):
        assert all(cell_len(line) <= width for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace("\n", "").replace(" ", "")


@given(WORDS, WORD, st.integers(12, 30))
def test_finished_lines_do_not_change_while_the_text_grows(text: str, word: str, width: int) -> None:
    before, after = from_end(text, width), from_end(f"{word} {text}", width)
    assert after[len(after) - len(before) + 1 :] == before[1:]
    before, after = from_start(text, width), from_start(f"{text} {word}", width)
    assert after[: len(before) - 1] == before[:-1]


def test_lines_are_filled_from_their_side() -> None:
    assert from_end("a bb ccc", 6) == ["a", "bb ccc"]
    assert from_start("a bb ccc", 6) == ["a bb", "ccc"]
    assert from_end("a\n\nb", 6) == from_start("a\n\nb", 6) == ["a", "", "b"]
    assert from_end("abcdefgh", 3) == ["ab", "cde", "fgh"]
    assert from_start("abcdefgh", 3) == ["abc", "def", "gh"]


def test_further_lines_are_indented_to_the_description() -> None:
    assert hanging_indent("  a=1      one two three", 23) == "  a=1      one two\n           three"
    assert hanging_indent("one\n\n  plain words and more", 12) == "one\n\n  plain\n  words and\n  more"
    assert hanging_indent(HELP, 40).split() == HELP.split()
    for width in (1, 2, 8, 20, 80):
        assert all(len(line) <= max(width, 2) for line in hanging_indent(HELP, width).split("\n"))
