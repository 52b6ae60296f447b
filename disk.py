"""Files that are there whole or not at all, and folders that one process at a time may write."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path`, durably, when the block ends well; if it does not, the old one stays."""
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
    """Write a value for people and programs to read."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


@contextmanager
def claim(folder: Path, flag: str) -> Iterator[None]:
    """Make the folder and keep other processes from writing it. The claim ends with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. Give another {flag}") from error
    with lock:
        _lock(lock, folder, flag)
        yield


@contextmanager
def claim_file(path: Path, flag: str) -> Iterator[IO[bytes]]:
    """Open a file to go on writing it, made if it is not there, and keep other processes from doing so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Give another {flag}") from error
    with file:
        _lock(file, path, flag)
        file.seek(0)
        yield file


def _lock(file: IO[Any], path: Path, flag: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process is writing {path}. Wait for it, or give another {flag}") from error
