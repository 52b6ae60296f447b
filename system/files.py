"""Files that are whole or absent, and folders and files that only one process may write."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from system.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file that durably replaces `path` when the block succeeds; otherwise the old file stays."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


@contextmanager
def lock_folder(folder: Path, flag: str) -> Iterator[None]:
    """Create the folder and lock it against other processes. The lock ends with the process, even if it is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. Use another {flag}") from error
    with lock:
        _lock(lock, folder, flag)
        yield


@contextmanager
def lock_file(path: Path, flag: str) -> Iterator[IO[bytes]]:
    """Open a file to append to, creating it if needed, and lock it against other processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Use another {flag}") from error
    with file:
        _lock(file, path, flag)
        file.seek(0)
        yield file


def _lock(file: IO[Any], path: Path, flag: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process is writing {path}. Wait for it, or use another {flag}") from error
