"""A folder that appears under its name only when it is complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from system.errors import BAD_FLAGS, UserError
from system.files import naming, rename

LAST = "config.json"  # without it no program takes a folder for a model, so it comes last when files are replaced
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")  # of an earlier export, which may have had more files


@contextmanager
def staged_folder(folder: Path, force: bool) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` when the block succeeds. A folder that holds something is refused, or with `force`:

    the new files replace those with the same names, the weights of an earlier export go, and everything else stays.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Give another --out-dir", BAD_FLAGS)
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty. Give another --out-dir, or add --force to replace an earlier export", BAD_FLAGS)
    staging = folder.with_name(f"{folder.name}.part")
    try:
        with naming(staging):
            shutil.rmtree(staging, ignore_errors=True)  # of an export that was killed
            staging.mkdir(parents=True)
            yield staging
            for path in staging.iterdir():
                _sync(path)
            if force and folder.is_dir():
                _replace_files(staging, folder)
            else:
                rename(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace_files(staging: Path, folder: Path) -> None:
    (folder / LAST).unlink(missing_ok=True)
    for pattern in WEIGHTS:
        for path in folder.glob(pattern):
            path.unlink()
    for path in sorted(staging.iterdir(), key=lambda path: path.name == LAST):
        rename(path, folder / path.name)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
