"""Files that are whole or absent, and folders and files that only one process may write."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from system.errors import UserError, remedy
from system.json_text import to_json


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file that durably replaces `path` when the block succeeds; otherwise the old file stays."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        with naming(path):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def rename(temporary: Path, path: Path) -> None:
    """Durably give a complete file its final name, which may be taken: the folder is synced too."""
    with naming(path):
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the operating system that name no file, such as a full disk while writing, name this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON."""
    write_text(path, to_json(value, indent=1) + "\n")


@contextmanager
def lock_folder(folder: Path, flag: str) -> Iterator[None]:
    """Create the folder and lock it against other processes. The lock ends with the process, even if it is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. {remedy(error)}, or use another {flag}") from error
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
        raise UserError(f"cannot write {path}: {error.strerror}. {remedy(error)}, or use another {flag}") from error
    with file:
        _lock(file, path, flag)
        file.seek(0)
        yield file


def _lock(file: IO[Any], path: Path, flag: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process is writing {path}. Wait for it, or use another {flag}") from error
