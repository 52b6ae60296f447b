"""The demo from end to end, as `make demo` runs it. Its validation loss is a golden number."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from checkpoint import load_checkpoint
from metrics import read_metrics
from tests.conftest import ROOT

# After 400 steps on two cores of an AMD EPYC in bfloat16. Other processors, types and thread counts end within the tolerance.
GOLDEN_VAL_LOSS = 0.332


def copy_project(folder: Path) -> Path:
    for file in ROOT.glob("*.py"):
        shutil.copy(file, folder)
    return folder


def test_the_demo_walks_the_whole_road(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # this one is worth all cores
    result = subprocess.run([sys.executable, "demo_xcoax.py"], cwd=copy_project(tmp_path), env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("This is a toy world") == 2
    stories = result.stdout.split("[4/4]")[1].split("\n  ending: ")[1:]
    assert len(stories) == 3
    for story in stories:
        ending, *lines = story.splitlines()
        text = " ".join(line.removeprefix("    | ") for line in lines if line.startswith("    |"))
        assert text.endswith(ending)
        assert len(text) > len(ending) + 40  # something led there
    best = load_checkpoint(tmp_path / "out" / "demo" / "best_checkpoint.pt")
    assert abs(best.val_loss - GOLDEN_VAL_LOSS) < 0.02
    assert [row["step"] for row in read_metrics(tmp_path / "out" / "demo") if "val_loss" in row] == [0, 200, 400]


def test_a_signal_to_the_demo_lets_the_stage_save(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "demo_xcoax.py"],
        cwd=copy_project(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 20/"):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert load_checkpoint(tmp_path / "out" / "demo" / "last_checkpoint.pt").step >= 20
