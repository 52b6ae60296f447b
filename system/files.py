"""Files that are whole or absent, and folders and files that only one process may write."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from system.errors import UserError, remedy
from system.json_text import to_json


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file that durably replaces `path` when the block succeeds; otherwise the old file stays."""
    temporary = path.with_name(f"{path.name}.part")
    with naming(path), _open_alone(temporary) as file:
        try:
            file.truncate()
            yield file
            file.flush()
            os.fsync(file.fileno())
            rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _open_alone(path: Path) -> IO[bytes]:
    """A file for one writer, perhaps with what a killed one left: a second writer waits here for the first, then gets a file of its own."""
    while True:
        file = os.fdopen(open_own(path, os.O_WRONLY | os.O_CREAT), "wb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.path.samestat(path.lstat(), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:  # it was renamed, or removed
            pass
        file.close()


def open_own(path: Path, flags: int) -> int:
    """Open a file in a folder that may come from a stranger: a link there could lead to any other file, and is not followed."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def refuse_link_out(path: Path) -> None:
    """Refuse a link to a file elsewhere, which a folder that was copied can hold. Those of the hub's cache lead to its own blobs."""
    if not path.is_symlink():
        return
    there = path.resolve()
    is_in_cache = there.parent.name == "blobs" and there.parent.parent.name.startswith("models--")
    if not there.is_relative_to(path.parent.resolve()) and not is_in_cache:
        raise UserError(f"{path} is a link to {there}, out of this folder. If you trust it, put the file itself in its place")


def rename(temporary: Path, path: Path) -> None:
    """Durably give a complete file its final name, which may be taken: the folder is synced too."""
    with naming(path):
        temporary.replace(path)
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


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
        lock = os.fdopen(open_own(folder / ".lock", os.O_RDWR | os.O_CREAT), "r+b")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. {remedy(error)}, or use another {flag}") from error
    with lock:
        _lock(lock.fileno(), folder, flag)
        yield


@contextmanager
def lock_file(path: Path, flag: str) -> Iterator[IO[bytes]]:
    """Open a file to append to, creating it if needed, and lock it against other processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+b")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. {remedy(error)}, or use another {flag}") from error
    with file:
        _lock(file.fileno(), path, flag)
        file.seek(0)
        yield file


@contextmanager
def lock_results(folder: Path, flag: str, shown: Path | None = None) -> Iterator[None]:
    """Create the folder and lock it against others that write results, without a file in it, and not against the training run there."""
    is_there = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write {shown or folder}: {error.strerror}. {remedy(error)}, or use another {flag}") from error
    try:
        _lock(descriptor, shown or folder, flag)
        yield
    finally:
        os.close(descriptor)
        if not is_there:
            with contextlib.suppress(OSError):
                folder.rmdir()  # unless there are results in it


def _lock(descriptor: int, path: Path, flag: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(os.fstat(descriptor))
        who = f" (process {holder})" if holder else ""
        raise UserError(f"another process is writing {path}{who}. Wait for it, or use another {flag}") from error


def _holder(locked: os.stat_result) -> str:
    """The id of the process that holds a lock, as Linux lists it for the processes of a container; empty where it cannot be known."""
    place = f"{os.major(locked.st_dev):02x}:{os.minor(locked.st_dev):02x}:{locked.st_ino}"
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    except OSError:
        return ""
    ids = [lock[4] for lock in locks if lock[1] == "FLOCK" and lock[5] == place]
    return ids[0] if ids and int(ids[0]) > 0 else ""  # a process of another container has the id 0
