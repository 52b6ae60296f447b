"""Lines of a text that fits a width: filled from the end or from the beginning, or hanging under their first line."""

import re
import textwrap

from rich.cells import cell_len

Span = tuple[int, int]  # of a line in its text: the indices of its first character and after its last one


def spans_from_end(text: str, width: int) -> list[Span]:
    """Lines filled from the end of each paragraph, so that finished lines do not change while text is added at the beginning."""
    lines: list[Span] = []
    end = len(text)
    for paragraph in reversed(text.split("\n")):
        lines += _paragraph_from_end(text, end - len(paragraph), end, width)
        end -= len(paragraph) + 1
    return lines[::-1]


def spans_from_start(text: str, width: int) -> list[Span]:
    """Lines filled from the beginning of each paragraph."""
    length = len(text)
    return [(length - end, length - start) for start, end in reversed(spans_from_end(text[::-1], width))]


def _paragraph_from_end(text: str, first: int, last: int, width: int) -> list[Span]:
    """The lines of text[first:last], the last one first."""
    lines: list[Span] = []
    start = end = word_end = last  # of the line, and of the next word to the left
    while True:
        word = text.rfind(" ", first, word_end) + 1 or first
        if start < end and cell_len(text[word:end]) > width:
            lines.append((start, end))
            end = word_end
        while cell_len(text[word:end]) > width:  # a word longer than a line
            cut = _start_of_fitting_end(text[word:end], width) + word
            lines.append((cut, end))
            end = cut
        start, word_end = word, word - 1
        if word_end < first:
            return [*lines, (start, end)]


def hanging_indent(text: str, width: int) -> str:
    """Wrap lines of a name and its description; further lines are indented to where the description starts."""
    lines: list[str] = []
    for line in text.split("\n"):
        column = min(len(line) - len(re.sub(r"^\s*(\S+\s{2,})?", "", line)), width // 2)
        lines += textwrap.wrap(line, max(width, 2), subsequent_indent=" " * column) or [""]
    return "\n".join(lines)


def _start_of_fitting_end(text: str, width: int) -> int:
    """The index from which the rest of the text fits into the width."""
    start, used = len(text), 0
    while start and used + cell_len(text[start - 1]) <= max(width, 2):
        start -= 1
        used += cell_len(text[start])
    return start
