"""A folder that appears when it is whole: what is told when the disk does not keep it."""

import errno
from pathlib import Path

import pytest

from exporting.staging import staged_folder


def test_a_file_that_the_disk_does_not_keep_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as error, staged_folder(tmp_path / "hf", force=False) as staging:
        (staging / "config.json").touch()
        monkeypatch.setattr("os.fsync", fail)
    assert error.value.filename == str(tmp_path / ".hf.part" / "config.json")
