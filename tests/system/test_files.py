"""Files are complete or absent, and locked folders and files have one writer."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from system.errors import UserError
from system.files import atomic_write, lock_file, lock_folder, write_json
from tests.conftest import ROOT


def test_a_successful_write_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"  # until the block ends
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [b"old", None])
def test_a_failed_write_leaves_the_old_file_or_none(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (path.read_bytes() if path.exists() else None) == before
    assert not list(tmp_path.glob("*.part"))


def test_json_is_readable_by_people_and_machines(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "é", "values": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "é", "values": [1, 2]}
    assert '"é"' in text and text.endswith("}\n") and len(text.splitlines()) > 1


@pytest.mark.parametrize("lock", [lock_folder, lock_file])
def test_a_second_writer_is_refused_until_the_first_has_finished(
    tmp_path: Path, lock: Callable[[Path, str], AbstractContextManager[object]]
) -> None:
    path = tmp_path / "new" / "out"
    with (
        lock(path, "--out-dir"),
        pytest.raises(UserError, match=f"another process is writing {path}.*use another --out-dir"),
        lock(path, "--out-dir"),
    ):
        pass
    with lock(path, "--out-dir"):
        pass


@pytest.mark.parametrize("lock", [lock_folder, lock_file])
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, lock: Callable[[Path, str], AbstractContextManager[object]]) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "out"
    with pytest.raises(UserError, match=f"cannot write {path}: .+ Fix this, or use another --output"), lock(path, "--output"):
        pass


def test_a_locked_file_keeps_its_contents_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_bytes(b"one")
    with lock_file(path, "--output") as file:
        assert file.read() == b"one"
        file.write(b" two")
    assert path.read_bytes() == b"one two"


def test_the_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time\nfrom system.files import lock_folder\n"
        "with lock_folder(pathlib.Path(sys.argv[1]), '--out-dir'):\n    print(flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UserError, match="another process is writing"), lock_folder(tmp_path, "--out-dir"):
            pass
        process.kill()
    with lock_folder(tmp_path, "--out-dir"):
        pass


def test_a_new_file_survives_a_power_cut_name_included(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(("folder" if is_folder else "file", (tmp_path / "file").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    assert synced == [("file", False), ("folder", True)]  # the folder after the rename


def test_a_failed_write_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as other, atomic_write(path):
        raise FileNotFoundError(errno.ENOENT, "No such file", "another")
    assert other.value.filename == "another"
