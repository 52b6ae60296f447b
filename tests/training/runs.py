"""Small runs of train_xcoax.py and finetune_xcoax.py: their commands, and ways to run them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from formats.checkpoint import BEST, LAST, load_checkpoint
from tests.conftest import ROOT, call_script

SHAPE = ("--n-layer", 1, "--n-head", 2, "--n-embed", 32, "--block-size", 64)
LOOP = ("--batch-size", 2, "--grad-accum", 2, "--lr", 3e-3, "--log-every", 1, "--no-compile", "--device", "cpu", "--dtype", "float32")
PRETRAINING = ("--max-steps", 40, "--eval-every", 8, "--dropout", 0.1, "--optimizer", "muon")
TUNING = ("--epochs", 2, "--eval-every", 10)


class Run(NamedTuple):
    """A finished run."""

    folder: Path
    printed: str


def pretraining_command(data: Path, out: Path, *flags: object) -> list[object]:
    always = (*SHAPE, *LOOP, "--eval-tokens", 256, "--warmup-steps", 3, "--sample-tokens", 8)
    return ["train_xcoax.py", "--data-dir", data, "--out-dir", out, *always, *flags]


def tuning_command(base: Path, pairs: Path, out: Path, *flags: object) -> list[object]:
    return ["finetune_xcoax.py", "--model-path", base, "--data-dir", pairs, "--out-dir", out, *LOOP, *flags]


def pretrain(data: Path, out: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    """Run train_xcoax.py in this process."""
    return call_script(*pretraining_command(data, out, *flags))


def tune(base: Path, pairs: Path, out: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    """Run finetune_xcoax.py in this process."""
    return call_script(*tuning_command(base, pairs, out, *flags))


def start(command: list[object]) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    line = [sys.executable, *map(str, command)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    """Read the output of a run up to the report of a step."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError(f"the run ended before step {step}: {process.stderr.read() if process.stderr else ''}")


def resumed_step(result: subprocess.CompletedProcess[str]) -> int:
    """The step from which a finished run was resumed."""
    assert result.returncode == 0, result.stderr
    found = re.search(r"resuming from \S+ at step (\d+)", result.stdout)
    assert found, result.stdout
    return int(found[1])


def assert_same_weights(ours: Path, theirs: Path) -> None:
    """Both checkpoints of both runs hold the same bits."""
    for name in (BEST, LAST):
        first, second = load_checkpoint(ours / name).weights, load_checkpoint(theirs / name).weights
        assert first.keys() == second.keys()
        for key in first:
            assert torch.equal(first[key], second[key]), (name, key)
