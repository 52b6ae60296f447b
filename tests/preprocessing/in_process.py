"""Runs the preprocessing scripts in the test's own process: same flags, messages and files as in a shell, in a tenth of the time."""

import contextlib
import io
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from config import CHUNK_DOCUMENTS
from preprocessing.chunks import Chunk, Item
from preprocessing.journal import Journal
from preprocessing.workers import EncodeChunk
from tests.conftest import ROOT


class Crash(BaseException):
    """Ends a run at a chosen step."""


def run_here(
    *arguments: object, chunk_documents: int = CHUNK_DOCUMENTS, crash_at_rename: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script as a person does, but in this process, the work of the worker processes included."""
    script, *flags = map(str, arguments)
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [script, *flags]),
        mock.patch("preprocessing.pipeline.encode_chunks", _encode_here),
        mock.patch("preprocessing.chunks.CHUNK_DOCUMENTS", chunk_documents),
        mock.patch.object(Path, "replace", _renames_until(crash_at_rename)),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        exit_code: object = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            exit_code = stop.code
    assert isinstance(exit_code, int)
    return subprocess.CompletedProcess([script, *flags], exit_code, stdout.getvalue(), stderr.getvalue())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _encode_here(journal: Journal, chunks: Iterator[Chunk[Item]], encode_chunk: EncodeChunk[Item], workers: int, unit: str) -> float:
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
