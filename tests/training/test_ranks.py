"""Several processes train like one: the same losses at every step, the same validation, one voice; and they end together."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from formats.checkpoint import load_checkpoint
from tests.conftest import ROOT, fails_with
from tests.ranks import in_processes, told_by_script, torchrun, torchrun_command
from tests.training.runs import pretrain, pretraining_command, tune, tuning_command
from training.metrics import read_metrics

RUN = ("--max-steps", 12, "--eval-every", 6, "--optimizer", "muon")


def rows(folder: Path, name: str) -> list[Any]:
    return [row[name] for row in read_metrics(folder) if name in row]


def assert_same_course(ours: Path, theirs: Path, exactly: bool = True) -> None:
    """The same losses and gradients at every step, the same tokens, nearly the same weights. Validation is exact before the first step."""
    for name in ("loss", "grad_norm", "val_loss"):
        assert rows(ours, name) == pytest.approx(rows(theirs, name), rel=1e-4), name
    assert rows(ours, "tokens") == rows(theirs, "tokens")
    assert not exactly or rows(ours, "val_loss")[0] == rows(theirs, "val_loss")[0]
    first, second = (load_checkpoint(folder / "last_checkpoint.pt") for folder in (ours, theirs))
    for key in first.weights:
        torch.testing.assert_close(first.weights[key], second.weights[key], rtol=0, atol=2e-3)


@pytest.fixture(scope="module")
def alone(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    assert pretrain(dataset_folder, out, *RUN).returncode == 0
    return out


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_several_processes_take_the_steps_of_one(count: int, dataset_folder: Path, alone: Path, tmp_path: Path) -> None:
    result = torchrun(count, pretraining_command(dataset_folder, tmp_path, *RUN))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("step 12: validation loss") == 1  # one voice
    assert f"{count} × " in result.stdout
    assert_same_course(tmp_path, alone)


@pytest.mark.long
def test_a_divided_model_takes_the_steps_of_a_whole_one(dataset_folder: Path, alone: Path, tmp_path: Path) -> None:
    result = torchrun(2, pretraining_command(dataset_folder, tmp_path, *RUN, "--shard"))
    assert result.returncode == 0, result.stderr
    assert_same_course(tmp_path, alone)


@pytest.mark.long
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_what_a_divided_model_saves_is_whole(optimizer: str, dataset_folder: Path, tmp_path: Path) -> None:
    """One process goes on with it, and two with what one has saved."""
    flags = ("--optimizer", optimizer, "--eval-every", 4, "--schedule", "wsd", "--cooldown-share", 0)
    assert pretrain(dataset_folder, tmp_path / "alone", *flags, "--max-steps", 12).returncode == 0
    for count, steps, shard in ((2, 4, ["--shard"]), (1, 8, []), (2, 12, ["--shard"])):
        result = torchrun(count, pretraining_command(dataset_folder, tmp_path / "out", *flags, "--max-steps", steps, *shard))
        assert result.returncode == 0, result.stderr
    assert_same_course(tmp_path / "out", tmp_path / "alone")


@pytest.mark.long
def test_a_divided_model_is_tuned_with_compiled_blocks(base: Path, pairs: Path, tmp_path: Path) -> None:
    """And with activations that are computed again; validation has fewer batches than there are processes."""
    flags = ("--epochs", 0.5, "--eval-every", 100, "--dropout", 0, "--eval-pairs", 3)
    assert tune(base, pairs, tmp_path / "one", *flags).returncode == 0
    result = torchrun(2, tuning_command(base, pairs, tmp_path / "two", *flags, "--shard", "--compile", "--checkpoint-activations"))
    assert result.returncode == 0, result.stderr
    assert_same_course(tmp_path / "two", tmp_path / "one", exactly=False)


def test_a_model_is_divided_among_several_processes_only(dataset_folder: Path, tmp_path: Path) -> None:
    fails_with(pretrain(dataset_folder, tmp_path, "--shard"), 2, "--shard: start several processes with torchrun")


@pytest.mark.long
@pytest.mark.parametrize("contrast", [0, 1])
def test_tuning_counts_the_targets_of_all_processes(base: Path, short_pairs: Path, contrast: float, tmp_path: Path) -> None:
    """Sequences of pairs have different numbers of targets, so a mean of the processes' means would be another loss."""
    flags = ("--epochs", 0.5, "--eval-every", 100, "--dropout", 0, "--contrast", contrast)
    assert tune(base, short_pairs, tmp_path / "one", *flags).returncode == 0
    result = torchrun(2, tuning_command(base, short_pairs, tmp_path / "two", *flags))
    assert result.returncode == 0, result.stderr
    assert_same_course(tmp_path / "two", tmp_path / "one")


@pytest.mark.long
def test_a_run_of_two_is_stopped_and_goes_on_alone(dataset_folder: Path, alone: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun saves; one process resumes; the course is that of an uninterrupted run."""
    command = pretraining_command(dataset_folder, tmp_path, *RUN)
    process = start(2, command)
    wait_for(process, "step 7/")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert told_by_script(errors)[0].startswith("train_xcoax.py: stopped at step ")
    assert len(told_by_script(errors)) == 1
    saved = load_checkpoint(tmp_path / "last_checkpoint.pt").step
    assert saved >= 7
    result = pretrain(dataset_folder, tmp_path, *RUN)
    assert f"at step {saved}" in result.stdout, result.stderr
    assert_same_course(tmp_path, alone)


@pytest.mark.long
def test_a_killed_process_ends_the_others_and_torchrun_goes_on_from_the_last_checkpoint(
    dataset_folder: Path, alone: Path, tmp_path: Path
) -> None:
    process = start(2, pretraining_command(dataset_folder, tmp_path, *RUN), "--max-restarts", 1)
    wait_for(process, "step 8/")
    workers = [child for child in psutil.Process(process.pid).children() if "train_xcoax.py" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[1].kill()
    printed, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "at step 6" in printed
    assert_same_course(tmp_path, alone)


@pytest.mark.long
def test_without_restarts_a_killed_process_ends_the_run_with_one_line(dataset_folder: Path, tmp_path: Path) -> None:
    process = start(2, pretraining_command(dataset_folder, tmp_path, *RUN, "--max-steps", 100_000))
    wait_for(process, "step 8/")
    [worker] = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1"]
    worker.kill()
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert all("another process of this run ended" in line for line in told_by_script(errors)), errors


@pytest.mark.long
def test_two_machines_of_which_one_is_lost(dataset_folder: Path, tmp_path: Path) -> None:
    """Two launchers meet at a port; one is killed with its process: the other ends. Started again, both go on."""
    last = tmp_path / "last_checkpoint.pt"
    for is_lost in (True, False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free.getsockname()[1]}"]
        steps = 100_000 if is_lost else load_checkpoint(last).step + 6
        command = pretraining_command(dataset_folder, tmp_path, *RUN, "--max-steps", steps)
        line = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc_per_node", 1, *meeting, *command]
        machines = [popen(line), popen(line)]
        if is_lost:
            wait_for_file(last)
            lost = next(machine for machine in machines if rank_of(machine) == 1)
            kill_with_children(lost)
            machines.remove(lost)
        for machine in machines:
            _, errors = machine.communicate(timeout=100)
            assert (machine.returncode != 0) == is_lost, errors
            assert len(told_by_script(errors)) == is_lost, errors
    assert load_checkpoint(last).step == steps


@pytest.mark.long
def test_a_batch_that_the_processes_cannot_divide_is_refused_in_one_line(dataset_folder: Path, tmp_path: Path) -> None:
    result = torchrun(3, pretraining_command(dataset_folder, tmp_path / "out", *RUN))
    assert result.returncode != 0
    [line] = told_by_script(result)
    assert "3 processes cannot divide 4 sequences equally. The nearest that works is --batch-size 3" in line
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


@pytest.mark.long
def test_processes_with_different_flags_are_refused(dataset_folder: Path, tmp_path: Path) -> None:
    command = " ".join(map(str, pretraining_command(dataset_folder, tmp_path, *RUN)))
    result = torchrun(2, ["bash", "-c", f"exec {sys.executable} {command} --seed $RANK"], "--no-python")
    assert result.returncode != 0
    [line] = told_by_script(result)
    assert "--seed differs between the processes: 0 in the first, 1 in number 1" in line


@pytest.mark.long
def test_a_wrong_flag_is_told_once(dataset_folder: Path, tmp_path: Path) -> None:
    result = torchrun(2, pretraining_command(dataset_folder, tmp_path, "--lr", -1))
    assert told_by_script(result) == ["train_xcoax.py: --lr -1.0: a number above 0"]


@pytest.mark.long
def test_all_processes_halve_the_micro_batch_when_one_runs_out_of_memory(dataset_folder: Path, tmp_path: Path) -> None:
    code, printed, told = in_processes(2, tmp_path, f"""
from pathlib import Path
from tests.training.counting import counting_batch, make_trainer
from tests.training.test_step import limit_memory
alone, trainer = (make_trainer(Path("{dataset_folder}"), Path("{tmp_path}") / f"{{ranks.number}}{{name}}") for name in "ab")
trainer.ranks = trainer.stepper.ranks = ranks
if ranks.number == 1:
    limit_memory(trainer.model, 1)
trainer.take_step(counting_batch(0)[2 * ranks.number : 2 * ranks.number + 2])
alone.take_step(counting_batch(0))
assert trainer.stepper.micro_batch == 1, trainer.stepper.micro_batch
assert trainer.tokens == alone.tokens
assert abs(trainer.read_steps()[0].loss - alone.read_steps()[0].loss) < 1e-5
""")  # fmt: skip
    assert code == 0, told
    assert printed.count("out of memory") == 2  # halved twice, told by the first
    assert printed.endswith("done\n")


@pytest.mark.long
def test_dropout_differs_between_the_processes(dataset_folder: Path, tmp_path: Path) -> None:
    code, _, told = in_processes(2, tmp_path, f"""
from pathlib import Path
from tests.training.counting import make_trainer
trainer = make_trainer(Path("{dataset_folder}"), Path("{tmp_path}") / str(ranks.number), max_steps=1)
trainer.ranks = trainer.stepper.ranks = ranks
trainer.run()
draws = ranks.divided(lambda _: [torch.rand(1).item()], range(2))
assert draws[0] != draws[1], draws
""")  # fmt: skip
    assert code == 0, told


def start(count: int, command: list[object], *flags: object) -> subprocess.Popen[str]:
    return popen(torchrun_command(count, command, *flags))


def popen(line: Sequence[object]) -> subprocess.Popen[str]:
    return subprocess.Popen([*map(str, line)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rank_of(launcher: subprocess.Popen[str]) -> int:
    """The rank of the process that a launcher has started."""
    [worker] = [child for child in psutil.Process(launcher.pid).children() if "RANK" in child.environ()]
    return int(worker.environ()["RANK"])


def kill_with_children(launcher: subprocess.Popen[str]) -> None:
    for process in (*psutil.Process(launcher.pid).children(recursive=True), psutil.Process(launcher.pid)):
        process.kill()
    launcher.communicate()


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.is_file():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)


def wait_for(process: subprocess.Popen[str], start_of_line: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start_of_line):
            return
    raise AssertionError(process.stderr.read() if process.stderr else "")
