"""Sources: files are read from any position, and documents are cut without losing a byte or splitting a character."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config import InstructConfig, PreprocessConfig
from formats.pairs import Pair
from formats.rows import TEXT_SEPARATOR
from formats.utf8 import normalize_line_endings
from preprocessing.sources import SAMPLED_FILES, Document, Position, Source, open_documents, open_pairs, sample_text, split_document
from system.errors import LostConnection, UserError
from tests.conftest import make_documents, make_pairs, write_jsonl, write_pairs

# Characters of one to four bytes, and everything that a document is cut at.
ALPHABET = st.sampled_from(["a", "é", "語", "🙂", " ", "\n", "\r", "\r\n", "<|endoftext|>", "\ufeff", "bcdefghijklmnop"])
STRINGS = st.lists(ALPHABET, max_size=40).map("".join)


def parts_of(text: bytes, limit: int) -> list[bytes]:
    """The parts that a document is cut into."""
    documents = split_document(Document(text, False), limit)
    assert [document.continues for document in documents] == [False] + [True] * (len(documents) - 1)
    return [document.text for document in documents if document.text is not None]


@given(STRINGS, st.integers(5, 40))
def test_the_parts_of_a_document_join_to_its_text(text: str, limit: int) -> None:
    whole = text.replace("\r\n", "\n").encode()
    parts = parts_of(text.encode(), limit)
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
def test_invalid_utf8_is_cut_without_loss(data: bytes, limit: int) -> None:
    parts = parts_of(data, limit)
    assert b"".join(parts) == data.replace(b"\r\n", b"\n")
    assert all(0 < len(part) <= limit for part in parts[:-1])


def is_document(text: str) -> bool:
    """It has no separator line, and nothing that a reader removes: a byte order mark, half of a line break."""
    lines = text.encode().split(b"\n")
    return not (any(re.match(rb"\s*<\|endoftext\|>(\s|$)", line) for line in lines) or text.startswith("\ufeff") or text.endswith("\r"))


@example(["bcdefghijklmnopa<|endoftext|>\nx"], "\n", 16)  # a piece of a line looks like a separator
@example(["bcdefghijklmnop\r\nx"], "\n", 16)  # a piece ends inside a line break
@given(st.lists(STRINGS.filter(is_document), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]), st.integers(16, 60))
def test_a_text_file_gives_its_documents_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str], end: str, limit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "property.txt"
    path.write_bytes((f"{end}<|endoftext|>{end}".join(texts) + end).encode())
    found: list[bytes] = []
    for parts, _ in open_documents(PreprocessConfig(input=(str(path),), max_document_bytes=limit)).read(Position(0, 0)):
        for part, continues, *_ in parts:
            assert part is not None and len(part) <= limit
            part.decode()
            found.append(found.pop() + part if continues else part)
    assert found == [normalize_line_endings(text.encode()) for text in texts]
    assert TEXT_SEPARATOR not in [line.strip() for text in found for line in text.split(b"\n")]


def test_local_files_are_read_from_any_position(tmp_path: Path) -> None:
    texts = make_documents(12)
    inputs = tuple(str(write_jsonl(tmp_path / f"{name}.jsonl", texts[start : start + 4])) for name, start in (("a", 0), ("b", 4), ("c", 8)))
    source = open_documents(PreprocessConfig(input=inputs))
    rows = list(source.read(Position(0, 0)))
    assert [document.text for documents, _ in rows for document in documents] == [text.encode() for text in texts]
    for index, (_, end) in enumerate(rows):
        assert list(source.read(end)) == rows[index + 1 :]
    pairs = make_pairs(6)
    pair_source = open_pairs(InstructConfig(input=(str(write_pairs(tmp_path / "pairs.jsonl", pairs)),)))
    expected = [[Pair(f"{pair['instruction']} {pair['input']}".strip(), pair["output"])] for pair in pairs]
    assert [found for found, _ in pair_source.read(Position(0, 2))] == expected[2:]


def test_a_lost_connection_resumes_at_the_next_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    failures = [0, 3, 3, 7]  # rows before which the connection breaks

    def open_file(file: int, row: int) -> Iterator[list[int]]:
        for number in range(row, 10):
            if failures and number == failures[0]:
                del failures[0]
                raise LostConnection("broken")
            yield [file, number]

    source = Source(("a", "b"), open_file, retries=2)
    assert [items for items, _ in source.read(Position(0, 0))] == [[file, row] for file in range(2) for row in range(10)]
    assert pauses == [1, 1, 2, 1]  # a row that arrives restores the retries
    failures = [4] * 3
    with pytest.raises(UserError, match="Gave up after 2 retries"):
        list(source.rows(0))


def test_the_sample_comes_from_files_spread_over_the_source() -> None:
    opened: list[int] = []

    def open_file(file: int, row: int) -> Iterator[list[Document]]:
        opened.append(file)
        for _ in range(1 if file == 0 else 100):
            yield [Document(f"{file:04}".encode(), False), Document(b"\xff", False), Document(b" ", False), Document(None, False)]

    texts = list(sample_text(Source(tuple(map(str, range(64))), open_file), 16 * 40))
    assert opened == [file * 64 // SAMPLED_FILES for file in range(SAMPLED_FILES)]
    assert 16 * 40 <= sum(map(len, texts)) < 16 * 40 + 16 * 4
    assert texts.count("0000") == 1  # a short file; the later ones make up for it
