"""Long runs: the memory of a script with its workers, and the files that it holds open, do not grow with what it has done."""

import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.conftest import ROOT, make_documents, make_pairs, write_jsonl, write_pairs
from tests.faults.trials import Trials
from tests.sampling.test_repl import answer, leave, terminal
from training.metrics import METRICS

WINDOW = 0.1  # share of the work, of each of the two measurements
MOST_GROWTH = 0.01
LENGTHS = 40  # of texts while it warms up: on some CPUs each has kernels of its own, of which the last are kept
KIND = "endurance: memory and open files once the caches are full, and so much later"


def whole(early: int, later: int) -> int:
    """The work in which the second measurement begins so much later than the first: that ends it, this one begins after `early`."""
    return math.ceil((early + later) / (1 - WINDOW))


class Sample(NamedTuple):
    """A process and its children at one moment."""

    done: float  # share of the work
    memory: int  # bytes in use
    files: int  # open


def measure(process: psutil.Process, done: float) -> Sample:
    # What is theirs alone would grow without a leak: workers share pages with the process that forked them, until they write to them.
    processes = [process, *process.children(recursive=True)]
    return Sample(done, sum(each.memory_info().rss for each in processes), sum(each.num_fds() for each in processes))


def watch(command: Sequence[object], folder: Path, done: Callable[[], float], pause: float = 0.05) -> list[Sample]:
    """Run a command to its end, and measure it all the time."""
    samples: list[Sample] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stdout=output, stderr=output, env=environment)
        while process.poll() is None:
            share = done()
            try:
                samples.append(measure(psutil.Process(process.pid), share))
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # a worker has just ended
                continue
            time.sleep(pause)
    assert process.returncode == 0, (folder / "output.txt").read_text()
    return samples


def require_no_growth(samples: Sequence[Sample], warm_up: float) -> str:
    """Compare the medians of two windows: a single measurement is at the mercy of the allocator. Returns the figures."""
    windows = [[sample for sample in samples if start <= sample.done <= start + WINDOW] for start in (warm_up, 1 - WINDOW)]
    assert min(map(len, windows)) >= 5, f"too few measurements: {[len(window) for window in windows]}"
    early, late = (statistics.median(sample.memory for sample in window) for window in windows)
    growth = (late - early) / early
    figures = f"{early / 1e6:.0f} MB {growth:+.2%}"
    assert growth < MOST_GROWTH, figures
    files = [min(sample.files for sample in window) for window in windows]  # some are open for a moment only
    assert files[1] <= files[0], f"open files: {files}"
    return figures


def training_steps(folder: Path, total: int) -> float:
    """The share of the steps that the log of a run has."""
    path = folder / METRICS
    rows = path.read_bytes().splitlines() if path.is_file() else []
    return json.loads(rows[-1])["step"] / total if rows and rows[-1].endswith(b"}") else 0.0


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.mark.faults
def test_training(trials: Callable[..., Trials], dataset_folder: Path, tmp_path: Path) -> None:
    """2,000 steps after 400, in which every buffer has found its place in the heap."""
    endured, warm_up, later, out = trials(KIND), 400, 2000, tmp_path / "run"
    steps = whole(warm_up, later)
    shape = ["--n-layer", 4, "--n-head", 4, "--n-embed", 128, "--block-size", 128]  # the demo's
    often = ["--batch-size", 1, "--max-steps", steps, "--eval-every", 100, "--keep-every", 100, "--log-every", 5]
    short = ["--eval-tokens", 512, "--sample-tokens", 8, "--no-compile", "--device", "cpu"]
    command = ["train_xcoax.py", "demo", "--data-dir", dataset_folder, "--out-dir", out, *shape, *often, *short]
    with endured.one(f"{later:,} steps of training"):
        samples = watch(command, tmp_path, lambda: training_steps(out, steps), 0.2)
        endured.note = f"{later:,} steps {require_no_growth(samples, warm_up / steps)}"


@pytest.mark.faults
def test_preprocessing(trials: Callable[..., Trials], tmp_path: Path) -> None:
    """Chunks of 100 documents, each after a pause in which it is measured; a chunk is what a run holds at once.

    10,000 documents after nearly as many: workers share pages with the process that they were forked from, until they write to them.
    """
    endured, warm_up, later, out = trials(KIND), 8000, 10_000, tmp_path / "data"
    count = whole(warm_up, later)
    source = write_jsonl(tmp_path / "documents.jsonl", make_documents(count))
    command = ["-m", "tests.preprocessing.slow_script", "preprocess_xcoax.py", "--input", source, "--data-dir", out]
    command += ["--vocab-size", 400, "--workers", 2]
    with endured.one(f"{later:,} documents"):
        samples = watch(command, tmp_path, lambda: 100 * len([*(out / "unfinished").glob("chunk_*.json")]) / count)
        endured.note = f"{later:,} documents {require_no_growth(samples, warm_up / count)}"


@pytest.mark.faults
def test_a_file_of_rows(trials: Callable[..., Trials], checkpoints: dict[str, Path], tmp_path: Path) -> None:
    endured, warm_up, later, out = trials(KIND), 125, 1000, tmp_path / "out.jsonl"
    count = whole(warm_up, later)
    pairs = [{"output": "a cat " * (row % LENGTHS + 1)} for row in range(warm_up)] + make_pairs(count - warm_up)
    source = write_pairs(tmp_path / "pairs.jsonl", pairs)
    command = ["sample_xcoax_instruct.py", "--model-path", checkpoints["tuning"], "--input", source, "--output", out]
    command += ["--max-new-tokens", 24, "--batch-size", 4]
    with endured.one(f"{later:,} rows of a file"):
        samples = watch(command, tmp_path, lambda: lines_in(tmp_path / "out.jsonl.unfinished") / count)
        endured.note = f"{later:,} rows {require_no_growth(samples, warm_up / count)}"


SCRIPTS = {"sample_xcoax.py": ("pretraining", "Prompt"), "sample_xcoax_instruct.py": ("tuning", "Response")}


@pytest.mark.faults
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_prompt(trials: Callable[..., Trials], checkpoints: dict[str, Path], script: str, tmp_path: Path) -> None:
    """In a real terminal, with settings and commands: 1,000 turns after 400, in which the terminal library fills its caches.

    The text of all of them stays for /save; it is counted too.
    """
    endured, warm_up, later = trials(KIND), 400, 1000
    turns = whole(warm_up, later)
    stage, label = SCRIPTS[script]
    commands = ["/again", "/undo", "temp=1", "settings", "top_k=5", "/again", "tokens=6", *(["/more"] if label == "Prompt" else [])]
    chooser, samples = random.Random(0), []
    with (
        endured.one(f"{later:,} turns of {script}"),
        terminal(script, "--model-path", checkpoints[stage], "--max-new-tokens", 8, state=tmp_path) as child,
    ):
        child.expect_exact(f"{label}: ")
        process = psutil.Process(child.pid)
        for turn in range(turns):
            text = f"the cat sleeps {turn}" + (" and sleeps" * (turn % LENGTHS) if turn < warm_up else "")
            line = chooser.choice(commands) if turn % 3 == 2 else text
            answer(child, line, label)
            if turn % 5 == 0:
                samples.append(measure(process, turn / turns))
        leave(child)
        endured.note = f"{later:,} turns {require_no_growth(samples, warm_up / turns)}"
