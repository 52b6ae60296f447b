"""Runs that are killed, stopped or fail: no work is lost, and resuming gives the same weights."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from formats.checkpoint import load_checkpoint
from tests.conftest import call_script, fails_with, file_size_limit, run_script
from tests.training.runs import (
    PRETRAINING,
    TUNING,
    Run,
    assert_same_weights,
    pretrain,
    pretraining_command,
    resumed_step,
    start,
    tune,
    tuning_command,
    wait_for_step,
)
from training.metrics import read_metrics


def test_a_killed_run_resumes_to_the_same_bits(dataset_folder: Path, pretrained: Run, tmp_path: Path) -> None:
    """SIGKILL, then the same command again: weights and metrics end like those of an uninterrupted run."""
    command = pretraining_command(dataset_folder, tmp_path, *PRETRAINING)
    process = start(command)
    wait_for_step(process, 19)  # a few steps after a checkpoint, so that work is lost
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = resumed_step(call_script(*command))
    assert resumed in (16, 24, 32)
    assert_same_weights(tmp_path, pretrained.folder)
    sittings = json.loads((tmp_path / "config.json").read_text())["sittings"]
    steps = [(sitting["from_step"], sitting["to_step"]) for sitting in sittings]
    assert steps == [(0, resumed), (resumed, 40)]

    def without_speed(folder: Path) -> list[dict[str, object]]:
        return [{key: row[key] for key in row if key not in ("seconds", "tokens_per_second", "tflops")} for row in read_metrics(folder)]

    assert without_speed(tmp_path) == without_speed(pretrained.folder)


def test_a_run_killed_after_its_last_checkpoint_gets_its_record_completed(dataset_folder: Path, pretrained: Run, tmp_path: Path) -> None:
    out = Path(shutil.copytree(pretrained.folder, tmp_path / "out"))
    whole = json.loads((out / "config.json").read_text())
    whole["sittings"][-1]["to_step"] = None
    (out / "config.json").write_text(json.dumps(whole))
    (out / "config.json.part").write_text("{")
    assert "is already at step 40" in pretrain(dataset_folder, out, *PRETRAINING).stdout
    assert json.loads((out / "config.json").read_text())["sittings"][-1]["to_step"] == 40
    assert not (out / "config.json.part").exists()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_resumes_to_the_same_bits(
    dataset_folder: Path, pretrained: Run, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    command = pretraining_command(dataset_folder, tmp_path, *PRETRAINING)
    process = start(command)
    wait_for_step(process, 11)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors
    assert "Run the same command again to resume" in errors
    assert load_checkpoint(tmp_path / "last_checkpoint.pt").step >= 11
    [sitting] = json.loads((tmp_path / "config.json").read_text())["sittings"]
    assert sitting["to_step"] == resumed_step(call_script(*command)) >= 11
    assert_same_weights(tmp_path, pretrained.folder)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_stopped_tuning_run_resumes_to_the_same_bits(
    base: Path, pairs: Path, tuned: Run, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    command = tuning_command(base, pairs, tmp_path, *TUNING)
    process = start(command)
    wait_for_step(process, 13)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors
    assert resumed_step(call_script(*command)) >= 10
    assert_same_weights(tmp_path, tuned.folder)


def test_when_the_reader_of_the_output_leaves_the_work_is_saved(dataset_folder: Path, tmp_path: Path) -> None:
    """As `| head` does, or a `| tee` that gets the same Ctrl-C."""
    process = start(pretraining_command(dataset_folder, tmp_path, *PRETRAINING, "--max-steps", 100_000, "--eval-every", 1000))
    wait_for_step(process, 11)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 128 + signal.SIGPIPE, errors
    assert "Traceback" not in errors
    assert load_checkpoint(tmp_path / "last_checkpoint.pt").step >= 11


def test_a_full_disk_leaves_the_previous_checkpoint_intact(dataset_folder: Path, tmp_path: Path) -> None:
    assert pretrain(dataset_folder, tmp_path, "--max-steps", 4, "--eval-every", 4).returncode == 0
    before = (tmp_path / "last_checkpoint.pt").read_bytes()
    with file_size_limit(20_000):
        result = pretrain(dataset_folder, tmp_path, "--max-steps", 8, "--eval-every", 4)
    fails_with(result, 1, "cannot save the checkpoint of step 8", "the previous one is intact", "Raise the file size limit")
    assert (tmp_path / "last_checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_without_data_each_script_names_the_command_that_makes_it(base: Path, tmp_path: Path) -> None:
    none, out = tmp_path / "none", tmp_path / "out"
    result = run_script(*pretraining_command(none, out))
    fails_with(result, 1, f"no finished dataset in {none}", "Run: python preprocess_xcoax.py --data-dir")
    result = tune(base, none, out)
    fails_with(result, 1, f"no finished dataset in {none}", "Run: python preprocess_instruct.py --data-dir")
    assert not out.exists()


def test_flags_out_of_range_exit_with_2(base: Path, pairs: Path, tmp_path: Path) -> None:
    fails_with(run_script(*tuning_command(base, pairs, tmp_path / "out", "--epochs", 0)), 2, "--epochs 0")
    assert not (tmp_path / "out").exists()
