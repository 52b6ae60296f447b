"""The files that `--input` names, and fingerprints that tell whether they changed."""

import glob
import hashlib
from pathlib import Path

from formats.remote_files import find_remote_files, is_remote, remote_fingerprint
from system.errors import BAD_FLAGS, UserError

ROW_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json")  # files of rows with named fields
DOCUMENT_ENDINGS = (*ROW_ENDINGS, ".txt")
WHOLE_BYTES = 64 << 20  # a larger file is fingerprinted by parts: a terabyte is not read twice


def find_files(inputs: tuple[str, ...], endings: tuple[str, ...] = DOCUMENT_ENDINGS) -> list[str]:
    """The files that `--input` names: in the order given, those of a folder or a glob sorted by name."""
    found: list[str] = []
    for given in inputs:
        if is_remote(given):
            remote = find_remote_files(given, endings)
            if not remote:
                raise UserError(f"--input {given}: no such file, or no file in it ends in {', '.join(endings)}", BAD_FLAGS)
            found += remote
            continue
        path = Path(given)
        try:
            if path.is_dir():
                files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(endings))
            elif path.is_file():
                files = [path]
            else:
                files = sorted(file for file in map(Path, glob.glob(given, recursive=True)) if file.is_file())
        except OSError as error:  # a folder without permission, or a name that is too long
            raise UserError(f"--input {given[:200]}: {error.strerror}", BAD_FLAGS) from error
        if not files:
            raise UserError(f"--input {given}: no such file, or no file in it ends in {', '.join(endings)}", BAD_FLAGS)
        found += map(str, files)
    for file in found:
        if not file.lower().endswith(endings):
            raise UserError(f"--input {file}: cannot be read; supported endings: {', '.join(endings)}", BAD_FLAGS)
    return found


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
