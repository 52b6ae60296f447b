"""Documents that are cut, and files of several documents: nothing is lost, nothing is split inside a character."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpus import Document
from corpus import cut as cut_document
from files import TEXT_SEPARATOR, read_text
from tests.test_files import as_text
from text import normalise_line_ends

# Characters of one to four bytes, and all that is cut at.
ALPHABET = st.sampled_from(["a", "é", "語", "🙂", " ", "\n", "\r", "\r\n", "<|endoftext|>", "\ufeff", "bcdefghijklmnop"])
STRINGS = st.lists(ALPHABET, max_size=40).map("".join)


def cut(text: bytes, limit: int) -> list[bytes]:
    """The parts of a document, as every reader of a corpus gets them."""
    documents = cut_document(Document(text, False), limit)
    assert [document.continues for document in documents] == [False] + [True] * (len(documents) - 1)
    return [document.text for document in documents if document.text is not None]


@given(STRINGS, st.integers(5, 40))
def test_parts_are_a_documents_text(text: str, limit: int) -> None:
    whole = text.replace("\r\n", "\n").encode()
    parts = cut(text.encode(), limit)
    assert b"".join(parts) == whole
    place = 0
    for part in parts[:-1]:
        assert 0 < len(part) <= limit
        part.decode()
        reach = whole[place : place + limit]
        mark = b"\n" if b"\n" in reach else b" "
        assert part == reach[: reach.rindex(mark) + 1] if mark in reach else len(part) > limit - 4
        place += len(part)
    assert len(parts[-1]) <= limit


@given(st.binary(max_size=200), st.integers(5, 40))
def test_parts_of_bytes_that_are_no_text(data: bytes, limit: int) -> None:
    parts = cut(data, limit)
    assert b"".join(parts) == data.replace(b"\r\n", b"\n")
    assert all(0 < len(part) <= limit for part in parts[:-1])


def is_document(text: str) -> bool:
    """It has no line that is a separator, nor what a reader takes away: a mark of the byte order, half of a line break."""
    lines = text.encode().split(b"\n")
    return not (any(re.match(rb"\s*<\|endoftext\|>(\s|$)", line) for line in lines) or text.startswith("\ufeff") or text.endswith("\r"))


@example(["bcdefghijklmnopa<|endoftext|>\nx"], "\n", 16)  # a piece of a line looks like a separator
@example(["bcdefghijklmnop\r\nx"], "\n", 16)  # a piece ends inside a line break
@given(st.lists(STRINGS.filter(is_document), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]), st.integers(16, 60))
def test_a_text_file_gives_its_documents_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str], end: str, limit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "property.txt"
    path.write_bytes(as_text(texts, end) + end.encode())
    found: list[bytes] = []
    for part, continues in read_text(str(path), limit):
        assert len(part) <= limit
        part.decode()
        part = normalise_line_ends(part)  # as every part is read
        found.append(found.pop() + part if continues else part)
    assert found == [normalise_line_ends(text.encode()) for text in texts]
    assert TEXT_SEPARATOR not in [line.strip() for text in found for line in text.split(b"\n")]
