"""Owns WikiText's form: its lines joined to articles, and the markup that it was tokenized with cleaned away."""

import re
from collections.abc import Iterable, Iterator

from formats.utf8 import decode_utf8

TITLE = re.compile(r" ?= ([^=]|[^=].*[^=]) = ?\r?")
HEADING = re.compile(r"(= )+(?P<text>[^= ].*?)( =)+")
# In this order. WikiText puts spaces around punctuation and writes 1 @,@ 000, well @-@ known, 3 @.@ 5.
REPLACEMENTS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r" ?<unk>", ""),
        (r" @([-,.])@ ", r"\1"),
        (r'" ([^"]*) "', r'"\1"'),
        (r" (['’](?:s|re|ve|ll|d|m|t)\b)", r"\1"),
        (r"(\w) (['’])(?= |$)", r"\1\2"),  # of a plural: the players ' union
        (r"([(\[{]) ", r"\1"),
        (r" ([,.;:!?%)\]}])", r"\1"),
        (r"([$£€]) (?=\d)", r"\1"),
    )
]


def join_articles(rows: Iterable[bytes | None]) -> Iterator[list[bytes | None]]:
    """For each row the articles that end before it or in it, and at last the one that ends with the rows. A row is a line, or several.

    A row that is not text is passed on: whoever reads on counts it as skipped.
    """
    lines: list[str] = []
    for row in rows:
        text = decode_utf8(row)
        if text is None:
            yield [row]
            continue
        finished: list[bytes | None] = []
        for line in text.split("\n"):
            if TITLE.fullmatch(line) and lines:
                finished.append("\n".join(lines).encode())
                lines = []
            if cleaned := clean_line(line):
                lines.append(cleaned)
        yield finished
    if lines:
        yield ["\n".join(lines).encode()]


def clean_line(line: str) -> str:
    """A line as it was before WikiText tokenized it, as far as that can be told; a heading without its equals signs."""
    text = line.strip()
    if heading := HEADING.fullmatch(text):
        text = heading["text"]
    for pattern, replacement in REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return text.strip()
