"""Worker processes: their number changes no byte; signals and a killed worker leave a folder that resumes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from formats.shards import open_dataset
from tests.conftest import ROOT, make_documents, run_script, write_jsonl
from tests.preprocessing.in_process import contents, run_here
from tests.preprocessing.slow_script import SMALL_CHUNK

Flags = list[object]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Flags, Path]:
    """Flags for ten small chunks of documents in two files, and the folder that one run in this process makes of them."""
    folder = tmp_path_factory.mktemp("many")
    texts = make_documents(950)
    sources = write_jsonl(folder / "a.jsonl", texts[:450]), write_jsonl(folder / "b.jsonl", texts[450:])
    flags: Flags = ["preprocess_xcoax.py", "--input", *sources, "--vocab-size", 400]
    resume(flags, folder / "whole")
    assert len(open_dataset(folder / "whole", check_hashes=True).shards("train")) == 10
    return flags, folder / "whole"


def resume(flags: Flags, folder: Path) -> subprocess.CompletedProcess[str]:
    """Finish a folder in this process."""
    result = run_here(*flags, "--data-dir", folder, chunk_documents=SMALL_CHUNK)
    assert result.returncode == 0, result.stderr
    return result


def start(flags: Flags, folder: Path, workers: int = 1) -> subprocess.Popen[str]:
    """Start a run in a process group of its own, with small chunks and pauses between them."""
    slow = ["-m", "tests.preprocessing.slow_script", *map(str, flags), "--data-dir", str(folder), "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, *slow], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_first_chunk(process: subprocess.Popen[str], folder: Path) -> None:
    while not (folder / "unfinished" / "chunk_00000.json").is_file():
        assert process.poll() is None
        time.sleep(0.005)


def test_the_number_of_workers_changes_no_byte(many: tuple[Flags, Path], tmp_path: Path) -> None:
    flags, whole = many
    process = start(flags, tmp_path / "data", workers=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "data") == contents(whole)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_the_process_that_imports_for_the_workers_does_not_see_ctrl_c() -> None:
    """A terminal sends it to the whole group, and a traceback in the middle of an import would be all that one sees."""
    code = """
import multiprocessing.forkserver, re
from preprocessing.workers import prepare_workers
prepare_workers()
print(re.search(r"SigBlk:\\s*(\\w+)", open(f"/proc/{multiprocessing.forkserver._forkserver._forkserver_pid}/status").read())[1])
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(result.stdout, 16) & 1 << signal.SIGINT - 1


def test_workers_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    """Its modules may have our names, as those of another version of this project do."""
    source = write_jsonl(tmp_path / "documents.jsonl", make_documents(50))
    for module in ("preprocessing/__init__.py", "gigatoken.py", "numpy.py"):
        (tmp_path / module).parent.mkdir(exist_ok=True)
        (tmp_path / module).write_text("raise SystemExit('imported from the current folder')")
    result = run_script("preprocess_xcoax.py", "--input", source, "--data-dir", tmp_path / "data", "--vocab-size", 400, cwd=tmp_path)
    assert result.returncode == 0 and "current folder" not in result.stderr, result.stderr


@pytest.mark.parametrize(("signal_number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_folder_that_resumes(
    many: tuple[Flags, Path], tmp_path: Path, signal_number: signal.Signals, exit_code: int
) -> None:
    flags, whole = many
    folder = tmp_path / "data"
    process = start(flags, folder)
    wait_for_first_chunk(process, folder)
    os.killpg(process.pid, signal_number)  # as a terminal does: workers get it too
    _, errors = process.communicate(timeout=120)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors
    assert "Run the same command again to resume" in errors
    assert "resuming" in resume(flags, folder).stdout
    assert contents(folder) == contents(whole)


def test_a_killed_worker_ends_the_run_and_keeps_finished_chunks(many: tuple[Flags, Path], tmp_path: Path) -> None:
    flags, whole = many
    folder = tmp_path / "data"
    process = start(flags, folder)
    wait_for_first_chunk(process, folder)
    server = next(child for child in psutil.Process(process.pid).children() if "forkserver" in " ".join(child.cmdline()))
    for worker in server.children():
        worker.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert errors.count("\n") == 1
    assert "a worker process was killed" in errors
    assert "resuming" in resume(flags, folder).stdout
    assert contents(folder) == contents(whole)
