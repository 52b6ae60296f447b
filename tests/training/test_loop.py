"""The training loop: what it saves, and when."""

import signal
from pathlib import Path

import pytest
import torch

from formats.checkpoint import load_checkpoint
from system.errors import UserError
from system.signals import Stopped
from tests.training.counting import make_trainer


def test_weights_whose_validation_loss_is_not_finite_are_not_saved(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=4, eval_every=2)
    trainer.run()
    before = (tmp_path / "last_checkpoint.pt").read_bytes()
    resumed = make_trainer(dataset_folder, tmp_path, max_steps=8, eval_every=2)
    resumed.resume(load_checkpoint(tmp_path / "last_checkpoint.pt", mapped=False))
    resumed.step = 6  # at an evaluation
    resumed.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="step 6: the validation loss is nan; the last saved step is 4"):
        resumed.run()
    assert (tmp_path / "last_checkpoint.pt").read_bytes() == before


def test_a_run_killed_between_its_two_checkpoints_writes_the_best_one_on_resuming(dataset_folder: Path, tmp_path: Path) -> None:
    make_trainer(dataset_folder, tmp_path, max_steps=4, eval_every=4).run()
    (tmp_path / "best_checkpoint.pt").unlink()
    resumed = make_trainer(dataset_folder, tmp_path, max_steps=8, eval_every=4)
    resumed.resume(load_checkpoint(tmp_path / "last_checkpoint.pt", mapped=False))
    assert load_checkpoint(tmp_path / "best_checkpoint.pt").step == 4


def test_a_signal_before_the_first_step_saves_nothing_and_says_so(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    trainer.signals.received = signal.SIGINT
    with pytest.raises(Stopped, match="stopped at step 0, before there was anything to save"):
        trainer.run()
    assert not (tmp_path / "last_checkpoint.pt").exists()
