"""Runs the preprocessing scripts in the test's own process: same flags, messages and files as in a shell, in a tenth of the time."""

import contextlib
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

from config import CHUNK_DOCUMENTS
from preprocessing.chunks import Chunk
from preprocessing.engine import EncodeChunk, Result, encode
from tests.conftest import call_script, make_documents, write_jsonl


class Crash(BaseException):
    """Ends a run at a chosen step."""


def run_here(
    *arguments: object, chunk_documents: int = CHUNK_DOCUMENTS, crash_at_rename: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script as a person does, but in this process, the work of the worker processes included."""
    with (
        mock.patch("preprocessing.encoding._make_engine", lambda config, encode_chunk, folder: EngineHere(encode_chunk, folder)),
        mock.patch("preprocessing.chunks.CHUNK_DOCUMENTS", chunk_documents),
        mock.patch("preprocessing.parquet_chunks.CHUNK_DOCUMENTS", chunk_documents),
        mock.patch.object(Path, "replace", _renames_until(crash_at_rename)),
    ):
        return call_script(*arguments)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run_to_the_first_record(folder: Path, source: Path) -> Path:
    """A folder with a plan and the record of one chunk, whose run ended before meta.json."""
    flags = ["--input", write_jsonl(source, [*make_documents(80), " "]), "--vocab-size", 400, "--val-share", 0.1, "--data-dir", folder]
    with contextlib.suppress(Crash):  # after the renames of the tokenizer, the plan, two shards and the record
        run_here("preprocess_xcoax.py", *flags, crash_at_rename=5)
    assert (folder / "unfinished" / "chunk_00000.json").is_file() and not (folder / "meta.json").exists()
    return folder


class EngineHere:
    """An engine that encodes a chunk when it is asked for the result."""

    def __init__(self, encode_chunk: EncodeChunk[Any], folder: Path) -> None:
        self._encode_chunk = encode_chunk
        self._folder = folder
        self._chunk: Chunk[Any] | None = None

    def has_room(self) -> bool:
        return self._chunk is None

    def is_busy(self) -> bool:
        return self._chunk is not None

    def send(self, chunk: Chunk[Any]) -> None:
        self._chunk = chunk

    def receive(self) -> tuple[Chunk[Any], Result]:
        assert self._chunk
        chunk, self._chunk = self._chunk, None
        return chunk, encode(chunk, self._encode_chunk, self._folder)

    def close(self) -> None:
        pass


def _renames_until(crash_at: int | None) -> object:
    rename = Path.replace
    count = 0

    def replace(path: Path, target: Path) -> Path:
        nonlocal count
        if count == crash_at:
            raise Crash
        count += 1
        return rename(path, target)

    return replace
