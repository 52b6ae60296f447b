"""The files that `--input` names, those beside them that are not read, and fingerprints that tell whether they changed."""

import glob
import hashlib
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from formats.remote_files import find_remote_files, is_remote, remote_fingerprint
from formats.tables import TABLE_ENDINGS
from system.errors import BAD_FLAGS, UserError

ROW_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", *TABLE_ENDINGS)  # files of rows with named fields
DOCUMENT_ENDINGS = (*ROW_ENDINGS, ".txt")
WHOLE_BYTES = 64 << 20  # a larger file is fingerprinted by parts: a terabyte is not read twice
NAMED_FILES = 3  # of those that are not read


class FoundFiles(NamedTuple):
    """What there is in the places that `--input` names."""

    read: list[str]
    other: list[str]  # of another kind, in a folder
    hidden: list[str]

    @property
    def notice(self) -> str:
        """What is not read; empty if all is."""
        names = [PurePosixPath(name).name for name in (*self.other, *self.hidden)]
        if not names:
            return ""
        named = ", ".join(names[:NAMED_FILES]) + (", …" if len(names) > NAMED_FILES else "")
        hidden = f" ({len(self.hidden):,} hidden)" if self.hidden else ""
        return f"{len(names):,} {'file is' if len(names) == 1 else 'files are'} not read: {named}{hidden}"


def find_files(inputs: tuple[str, ...], endings: tuple[str, ...] = DOCUMENT_ENDINGS) -> list[str]:
    """The files that `--input` names: in the order given, those of a folder or a glob sorted by name."""
    return look_for_files(inputs, endings).read


def look_for_files(inputs: tuple[str, ...], endings: tuple[str, ...]) -> FoundFiles:
    """The files that `--input` names, and those that a folder or a glob has beside them.

    A hidden file is read only if it is named itself, or the hidden folder that it is in.
    """
    found = FoundFiles([], [], [])
    for given in inputs:
        files, is_folder = _files_of(given, endings)
        shown = [file for file in files if not _is_hidden(file, given)]
        read = [file for file in shown if file.lower().endswith(endings)] if is_folder else shown
        if not read:
            hidden = ", except hidden ones" if len(shown) < len(files) else ""
            raise UserError(f"--input {given[:200]}: no such file, or no file in it ends in {', '.join(endings)}{hidden}", BAD_FLAGS)
        found.read.extend(read)
        found.other.extend(sorted({*shown} - {*read}))
        found.hidden.extend(sorted({*files} - {*shown}))
    for file in found.read:
        if not file.lower().endswith(endings):
            raise UserError(f"--input {file}: cannot be read; supported endings: {', '.join(endings)}", BAD_FLAGS)
    return found


def _files_of(given: str, endings: tuple[str, ...]) -> tuple[list[str], bool]:
    """A file, or those of a folder or a glob, sorted; and whether files of other kinds may be among them."""
    if is_remote(given):
        return find_remote_files(given, endings), True
    path = Path(given)
    try:
        if path.is_dir():
            return [str(file) for file in sorted(path.rglob("*")) if file.is_file()], True
        if path.is_file():
            return [str(path)], False
        return [str(file) for file in sorted(map(Path, glob.glob(given, recursive=True))) if file.is_file()], False
    except OSError as error:  # a folder without permission, or a name that is too long
        raise UserError(f"--input {given[:200]}: {error.strerror}", BAD_FLAGS) from error


def _is_hidden(file: str, given: str) -> bool:
    """Whether a file or a folder above it is hidden, unless what was given says that name."""
    said = [part for part in PurePosixPath(given).parts if _hides(part)]
    return any(_hides(part) and not any(fnmatchcase(part, name) for name in said) for part in PurePosixPath(file).parts)


def _hides(part: str) -> bool:
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


def fingerprint(path: str) -> str:
    """A file's name without its folder, its size and a hash, from parts of it if it is large: must match when resuming."""
    if is_remote(path):
        return remote_fingerprint(path)
    file = Path(path)
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as data:
        if size <= WHOLE_BYTES:
            digest.update(data.read())
        else:
            for start in range(0, size, max(size // 16, 1)):
                data.seek(start)
                digest.update(data.read(1 << 16))
            data.seek(-(1 << 16), 2)
            digest.update(data.read())
    return f"{file.name} ({size:,} bytes, {digest.hexdigest()[:12]})"
