"""Files are complete or absent, and locked folders and files have one writer."""

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from system.errors import UserError
from system.files import atomic_write, lock_file, lock_folder, lock_results, write_json
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


@pytest.mark.parametrize("lock", [lock_folder, lock_file, lock_results])
def test_a_second_writer_is_refused_until_the_first_has_finished(
    tmp_path: Path, lock: Callable[[Path, str], AbstractContextManager[object]]
) -> None:
    path = tmp_path / "new" / "out"
    who = rf" \(process {os.getpid()}\)" if sys.platform == "linux" else ""
    with (
        lock(path, "--out-dir"),
        pytest.raises(UserError, match=rf"another process is writing {path}{who}\. Wait for it, or use another --out-dir"),
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


@pytest.mark.parametrize(
    "locks",
    ["", "1: -> FLOCK ADVISORY WRITE 7 {place} 0 EOF\n2: POSIX ADVISORY WRITE 7 {place} 0 EOF", "1: FLOCK ADVISORY WRITE 0 {place} 0 EOF"],
)
def test_a_process_that_the_system_does_not_list_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: str) -> None:
    """Another system than Linux, one that waits for the lock, and the process of another container."""
    there = tmp_path.stat()
    listed = locks.format(place=f"{os.major(there.st_dev):02x}:{os.minor(there.st_dev):02x}:{there.st_ino}")

    def read_text(path: Path, encoding: str) -> str:
        if not listed:
            raise FileNotFoundError
        return listed

    monkeypatch.setattr(Path, "read_text", read_text)
    with (
        lock_results(tmp_path, "--out-dir"),
        pytest.raises(UserError, match=f"another process is writing {tmp_path}. Wait"),
        lock_results(tmp_path, "--out-dir"),
    ):
        pass


def test_a_folder_without_results_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock_results(tmp_path / "new", "--out-dir"):
        raise KeyboardInterrupt
    assert not (tmp_path / "new").exists()
    with lock_results(tmp_path / "new", "--out-dir"):
        (tmp_path / "new" / "report.md").write_text("")
    assert (tmp_path / "new" / "report.md").is_file()


def test_a_link_in_a_folder_of_a_stranger_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in (".lock", "report.md.part", "rows.unfinished"):
        (tmp_path / name).symlink_to(precious)
    with pytest.raises(UserError, match="cannot write"), lock_folder(tmp_path, "--out-dir"):
        pass
    with pytest.raises(UserError, match="cannot write"), lock_file(tmp_path / "rows.unfinished", "--output"):
        pass
    with pytest.raises(OSError, match=r"report.md.part"), atomic_write(tmp_path / "report.md") as file:
        file.write(b"theirs")
    assert precious.read_text() == "mine"


def test_two_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"

    def write(content: bytes) -> None:
        with atomic_write(path) as file:
            file.write(content)

    second = threading.Thread(target=write, args=[b"second"])
    with atomic_write(path) as file:
        file.write(b"first, and longer")
        second.start()
        second.join(0.05)
        file.flush()
        assert second.is_alive() and path.with_name("loss.png.part").read_bytes() == b"first, and longer"
    second.join()
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


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
