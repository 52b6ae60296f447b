"""A text of which a part was given and the rest is written, word by word, from there outwards."""

import re
from itertools import takewhile
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from system.escapes import escape_controls
from system.wrapping import spans_from_end, spans_from_start

GIVEN_STYLE = "dim"


class Passage(NamedTuple):
    """A text, its given part at one end of it."""

    text: str
    given: int = 0  # characters
    grows_left: bool = False  # the given part is the end, and new words appear at the beginning

    def keep_words(self, count: int) -> "Passage":
        """Only the written words nearest to the given part, at most so many, with the white space between them."""
        written = self.text[: len(self.text) - self.given] if self.grows_left else self.text[self.given :]
        words = [match.span() for match in re.finditer(r"\S+", written)]
        if count >= len(words):
            return self
        if self.grows_left:
            return self._replace(text=self.text[words[-count][0] if count else len(written.rstrip()) :])
        return self._replace(text=self.text[: self.given + (words[count - 1][1] if count else 0)])

    @property
    def words(self) -> int:
        """How many words were written."""
        return len((self.text[: len(self.text) - self.given] if self.grows_left else self.text[self.given :]).split())

    def without_broken_word(self) -> "Passage":
        """Without the outermost word, which may lack letters; the only one stays."""
        return self.keep_words(self.words - 1) if self.words > 1 else self

    def lines(self, width: int) -> list[Text]:
        """As a terminal shows it: lines that do not change while the text grows, the given part in a style of its own."""
        safe = self._escaped()
        spans = (spans_from_end if self.grows_left else spans_from_start)(safe.text, max(width, 2))
        styled = Text(safe.text)
        styled.stylize(GIVEN_STYLE, *((len(safe.text) - safe.given,) if self.grows_left else (0, safe.given)))
        return [styled[start:end] if start < end else Text() for start, end in spans]

    def _escaped(self) -> "Passage":
        """The text without control characters; the bytes of its outermost character may be incomplete."""
        split = len(self.text) - self.given if self.grows_left else self.given
        first, last = escape_controls(self.text[:split]), escape_controls(self.text[split:])
        return self._replace(text=(first + last).strip("\ufffd") or " ", given=len(last) if self.grows_left else len(first))


def given_characters(text: str, given: str, grows_left: bool) -> int:
    """How much of a text's end, or of its beginning, is what was given."""
    pairs = zip(reversed(text), reversed(given), strict=False) if grows_left else zip(text, given, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def flush_right(line: Text, width: int) -> Text:
    """A line that is still growing to the left, at the right side."""
    return Text(" " * max(width - cell_len(line.plain), 0)) + line
