"""Watching a run: numbered checkpoints, and HellaSwag while it trains."""

from pathlib import Path
from unittest import mock

import pytest
import torch

from config import EvaluateConfig
from evaluation.evaluated_model import load_models
from evaluation.hellaswag import measure_hellaswag, read_tasks
from formats.checkpoint import load_checkpoint, numbered_checkpoints
from tests.conftest import fails_with
from tests.evaluation.test_hellaswag import ROW, write_rows
from tests.training.runs import Run, pretrain, tune
from training.loop import Trainer
from training.metrics import read_metrics


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twenty tasks whose true endings are known words in different places."""
    rows = [{**ROW, "label": str(number % 4), "ctx_b": f"The dog {number}"} for number in range(20)]
    return write_rows(tmp_path_factory.mktemp("tasks") / "tasks.jsonl", rows)


@pytest.fixture(scope="module")
def watched(dataset_folder: Path, tasks: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of ten steps, stopped in between by its number of steps."""
    out = tmp_path_factory.mktemp("runs") / "watched"
    flags = ("--keep-every", 4, "--eval-every", 5, "--hellaswag-every", 5, "--hellaswag", tasks, "--schedule", "wsd", "--cooldown-share", 0)
    for steps in (5, 10):
        result = pretrain(dataset_folder, out, *flags, "--max-steps", steps)
        assert result.returncode == 0, result.stderr
    return Run(out, result.stdout)


def test_numbered_checkpoints_stay(watched: Run, dataset_folder: Path, tmp_path: Path) -> None:
    kept = numbered_checkpoints(watched.folder)
    assert [path.name for path in kept] == ["checkpoint_000004.pt", "checkpoint_000008.pt"]
    constant = ("--schedule", "wsd", "--cooldown-share", 0, "--eval-every", 5)
    assert pretrain(dataset_folder, tmp_path, *constant, "--max-steps", 8).returncode == 0
    ours, theirs = load_checkpoint(kept[-1]), load_checkpoint(tmp_path / "last_checkpoint.pt")
    assert ours.step == 8 and ours.resume_state is None
    for name, weights in ours.weights.items():
        assert torch.equal(weights, theirs.weights[name]), name


def test_a_run_killed_while_it_evaluates_has_kept_its_numbered_checkpoint(dataset_folder: Path, tmp_path: Path) -> None:
    """When it resumes, it is past that step."""
    evaluate = Trainer.evaluate

    def killed(trainer: Trainer) -> None:
        if trainer.step == 4:
            raise KeyboardInterrupt
        evaluate(trainer)

    with mock.patch.object(Trainer, "evaluate", killed):
        assert pretrain(dataset_folder, tmp_path, "--max-steps", 8, "--keep-every", 4, "--eval-every", 4).returncode == 130
    assert [path.name for path in numbered_checkpoints(tmp_path)] == ["checkpoint_000004.pt"]


def test_tuning_keeps_them_too(base: Path, pairs: Path, tmp_path: Path) -> None:
    assert tune(base, pairs, tmp_path, "--epochs", 0.3, "--keep-every", 2).returncode == 0
    assert load_checkpoint(numbered_checkpoints(tmp_path)[0]).stage == "tuning"


def test_hellaswag_while_training_is_that_of_the_report_card(watched: Run, tasks: str) -> None:
    rows = [row for row in read_metrics(watched.folder) if "hellaswag" in row]
    assert [row["step"] for row in rows] == [0, 5, 10]
    assert f"HellaSwag {rows[-1]['hellaswag']:.1%}" in watched.printed
    models = load_models(EvaluateConfig((str(watched.folder / "last_checkpoint.pt"),), dtype="float32"), torch.device("cpu"))
    section = measure_hellaswag(models, read_tasks(tasks, 0), 0)
    cell = section.rows[models[0].name][list(section.columns).index("second part, per byte")]
    assert not isinstance(cell, str)
    assert cell.value == rows[-1]["hellaswag"]
    assert 0 < cell.value < 1


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--hellaswag-every", 7, "--eval-every", 5), "--hellaswag-every 7: a multiple of --eval-every 5"),
        (("--keep-every", -1), "--keep-every -1: a number of 0 or more"),
    ],
)
def test_wrong_intervals_are_refused(flags: tuple[object, ...], part: str, dataset_folder: Path, tmp_path: Path) -> None:
    fails_with(pretrain(dataset_folder, tmp_path, *flags), 2, part)


def test_a_file_without_tasks_is_refused_before_the_first_step(dataset_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    flags = ("--hellaswag-every", 5, "--eval-every", 5, "--hellaswag", tmp_path / "empty.jsonl")
    fails_with(pretrain(dataset_folder, tmp_path / "out", *flags), 1, "no tasks in it")
