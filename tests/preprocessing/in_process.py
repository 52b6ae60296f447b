"""Runs the preprocessing scripts in the test's own process: same flags, messages and files as in a shell, in a tenth of the time."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from config import CHUNK_DOCUMENTS, SourceConfig
from preprocessing.chunks import Chunk, Item
from preprocessing.engine import EncodeChunk
from preprocessing.journal import Journal
from tests.conftest import call_script


class Crash(BaseException):
    """Ends a run at a chosen step."""


def run_here(
    *arguments: object, chunk_documents: int = CHUNK_DOCUMENTS, crash_at_rename: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script as a person does, but in this process, the work of the worker processes included."""
    with (
        mock.patch("preprocessing.pipeline.encode_chunks", _encode_here),
        mock.patch("preprocessing.chunks.CHUNK_DOCUMENTS", chunk_documents),
        mock.patch.object(Path, "replace", _renames_until(crash_at_rename)),
    ):
        return call_script(*arguments)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _encode_here(
    journal: Journal, chunks: Iterator[Chunk[Item]], encode_chunk: EncodeChunk[Item], config: SourceConfig, unit: str
) -> float:
    for chunk in chunks:
        if chunk.number not in journal.records:
            journal.add(chunk.number, encode_chunk(chunk, journal.folder))
    return 1.0


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
