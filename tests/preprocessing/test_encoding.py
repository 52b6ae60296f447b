"""The encoding of chunks: what becomes of an engine's answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config import PreprocessConfig
from preprocessing import encoding
from preprocessing.chunks import Chunk
from preprocessing.encoding import encode_chunks
from preprocessing.engine import Lost, Result
from preprocessing.journal import ChunkRecord, Journal
from preprocessing.sources import Position
from system.errors import UserError

RECORD = ChunkRecord({"train": [], "val": []}, {}, Position(0, 1))


class Unreliable:
    """An engine of many workers, of which all lose their first connections at the same time."""

    def __init__(self, losses: int) -> None:
        self._losses = losses
        self._tries: dict[int, int] = {}
        self._queue: list[Chunk[Any]] = []

    def has_room(self) -> bool:
        return True

    def is_busy(self) -> bool:
        return bool(self._queue)

    def send(self, chunk: Chunk[Any]) -> None:
        self._queue.append(chunk)

    def receive(self) -> tuple[Chunk[Any], Result]:
        chunk = self._queue.pop(0)
        self._tries[chunk.number] = self._tries.get(chunk.number, 0) + 1
        return chunk, Lost("gone", 3) if self._tries[chunk.number] <= self._losses else RECORD

    def close(self) -> None:
        self._queue.clear()


def run(losses: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Journal, list[float]]:
    """Encode thirty chunks with two retries; the journal and the pauses."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr(encoding, "_make_engine", lambda *_: Unreliable(losses))
    journal = Journal(folder)
    chunks: Iterator[Chunk[Any]] = (Chunk(number, [], "", Position(0, number)) for number in range(30))
    encode_chunks(journal, chunks, lambda chunk, folder: RECORD, PreprocessConfig(retries=2), "documents")
    return journal, pauses


def test_each_chunk_has_its_own_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, pauses = run(2, tmp_path, monkeypatch)
    assert sorted(journal.records) == list(range(30))
    assert pauses == [3] * 60  # as long as the storage asks for


def test_a_chunk_that_stays_lost_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="chunk 0: gone. Gave up after 2 retries"):
        run(3, tmp_path, monkeypatch)
