"""A folder that appears under its name only when it is complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from formats.hugging_face import OURS
from system.errors import BAD_FLAGS, UserError
from system.files import lock_results, naming, rename, sync

# The files of an export. Whatever else is in its folder belongs to someone and stays.
EXPORTED = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", OURS),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "README.md", "reverse.py", "report_*.png"),
)


@contextmanager
def staged_folder(folder: Path, force: bool) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` when the block succeeds. With `force` an earlier export is replaced as a whole."""
    folder = folder.resolve()
    _require_free(folder, force)
    staging = folder.with_name(f".{folder.name}.part")
    with naming(staging), lock_results(staging, "--out-dir", folder):
        try:
            if not folder.exists() and _earlier(folder).is_dir():  # a run was killed before the new one had its name
                _earlier(folder).rename(folder)
            _require_free(folder, force)  # another export may have ended since then
            for path in staging.iterdir():  # of an export that was killed
                _remove(path)
            yield staging
            for path in (*staging.iterdir(), staging):
                with naming(path):
                    sync(path)
            _put_in_place(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def require_possible(folder: Path) -> None:
    """Refuse a place where no folder can be: a file, below a file, or the root."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not folder.name or not there.is_dir():
        raise UserError(f"--out-dir {folder}: not a folder that can be made. Give another one", BAD_FLAGS)


def _require_free(folder: Path, force: bool) -> None:
    require_possible(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not force:
        raise UserError(f"{folder} is not empty. Give another --out-dir, or add --force to replace an earlier export", BAD_FLAGS)
    if not (folder / OURS).is_file():
        raise UserError(f"{folder} holds no earlier export (no {OURS}), so --force does not replace it. Give another --out-dir", BAD_FLAGS)


def _put_in_place(staging: Path, folder: Path) -> None:
    """Give the folder its name. What an earlier export does not own is kept; until the end the earlier one is there as a whole."""
    if not folder.is_dir() or not any(folder.iterdir()):
        rename(staging, folder)
        return
    for path in folder.iterdir():
        if not any(fnmatchcase(path.name, pattern) for pattern in EXPORTED):
            _link(path, staging / path.name)
    earlier = _earlier(folder)
    shutil.rmtree(earlier, ignore_errors=True)
    folder.rename(earlier)
    try:
        rename(staging, folder)
    except BaseException:
        if not folder.exists():
            earlier.rename(folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _earlier(folder: Path) -> Path:
    """Where the earlier export waits while the new one gets its name."""
    return folder.with_name(f".{folder.name}.earlier")


def _link(path: Path, other: Path) -> None:
    """Give a file, or all files of a folder, a second name. (`shutil.copytree` does not tell what the operating system refused.)"""
    if not path.is_dir() or path.is_symlink():
        os.link(path, other, follow_symlinks=False)
        return
    other.mkdir()
    for each in path.iterdir():
        _link(each, other / each.name)
    shutil.copystat(path, other)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
