"""The training loop: what it saves, and when."""

import signal
from pathlib import Path

import pytest
import torch

from formats.checkpoint import load_checkpoint
from system.errors import UserError
from system.signals import Stopped
from tests.training.counting import make_trainer
from training.run import checkpoint_to_resume
from training.step import StepResult


def test_weights_whose_validation_loss_is_not_finite_are_not_saved(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=4, eval_every=2)
    trainer.run()
    before = (tmp_path / "last_checkpoint.pt").read_bytes()
    resumed = make_trainer(dataset_folder, tmp_path, max_steps=8, eval_every=2)
    resumed.resume(load_checkpoint(tmp_path / "last_checkpoint.pt", mapped=False))
    resumed.step = 6  # at an evaluation
    resumed.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="step 6: the validation loss is nan; .*/last_checkpoint.pt of step 4 is intact"):
        resumed.run()
    assert (tmp_path / "last_checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("stops", [False, True])
def test_a_run_that_is_lost_says_at_which_step_and_saves_nothing_of_it(stops: bool, dataset_folder: Path, tmp_path: Path) -> None:
    """It is noticed at the next log line, evaluation or stop; nothing waits for the steps before that."""
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=20, eval_every=4, log_every=100)
    gradients = iter(range(10))

    def damage(gradient: torch.Tensor) -> torch.Tensor | None:
        step = next(gradients) + 1
        if stops and step == 6:
            trainer.signals.received = signal.SIGINT
        return gradient * torch.inf if step == 6 else None

    trainer.model.norm.weight.register_hook(damage)  # type: ignore[no-untyped-call]  # torch's gap
    with pytest.raises(
        UserError,
        match=r"step 6: the loss is \d.*, the gradient norm (inf|nan); .*last_checkpoint.pt of step 4 is intact. Try a lower --lr than",
    ):
        trainer.run()
    assert trainer.step == (6 if stops else 8)
    assert load_checkpoint(tmp_path / "last_checkpoint.pt").step == 4


def test_weights_that_are_not_finite_are_never_saved(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    trainer.model.embedding.weight.data[-1, 0] = torch.inf  # a padding row: no loss shows it
    trainer.step = 1
    with pytest.raises(UserError, match="the weights are not finite; nothing was saved yet"):
        trainer.save("last_checkpoint.pt", 1.0)
    assert not any(tmp_path.glob("*.pt*"))


def test_measurements_are_read_on_log_lines_and_before_evaluations_only(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=25, eval_every=20, log_every=10)
    read, reads = trainer.stepper.read, []

    def counted_read() -> list[StepResult]:
        reads.append(trainer.step)
        return read()

    monkeypatch.setattr(trainer.stepper, "read", counted_read)
    trainer.run()
    assert reads == [0, 1, 10, 20, 20, 25]


def test_a_lost_run_ends_however_rarely_it_is_logged(dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.loop.READ_EVERY", 5)
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=10**9, eval_every=10**9, log_every=10**9)
    trainer.model.norm.weight.register_hook(lambda gradient: gradient * torch.nan if trainer.step else None)  # type: ignore[no-untyped-call]  # torch's gap
    with pytest.raises(UserError, match="step 2: .* the gradient norm nan"):
        trainer.run()
    assert trainer.step == 5


def test_a_model_that_fails_before_training_gets_other_advice(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    trainer.model.norm.weight.data.fill_(torch.inf)
    with pytest.raises(UserError, match="the validation loss is nan before training. Try --dtype float32"):
        trainer.run()


def test_a_signal_before_the_first_step_saves_nothing_and_says_so(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    trainer.signals.received = signal.SIGINT
    with pytest.raises(Stopped, match="stopped at step 0, before there was anything to save"):
        trainer.run()
    assert not (tmp_path / "last_checkpoint.pt").exists()


def test_a_last_checkpoint_that_cannot_be_resumed_says_so(dataset_folder: Path, tmp_path: Path) -> None:
    make_trainer(dataset_folder, tmp_path, max_steps=2, eval_every=2).run()
    path = tmp_path / "last_checkpoint.pt"
    content = torch.load(path, weights_only=True)
    moments = content["optimizer"]["adamw"]["state"]
    shape = moments[0]["exp_avg"].shape
    cut, expanded = ({0: moments[0] | {"exp_avg": tensor}} for tensor in (torch.zeros(shape[1:]), torch.zeros(()).expand(shape)))
    with pytest.raises(ValueError, match="the optimizer's state of parameter 0 has exp_avg of shape"):  # used, it would end the process
        make_trainer(dataset_folder, tmp_path).stepper.optimizer.load_state_dict({"adamw": {"state": expanded}})
    damage: dict[str, dict[str, object]] = {
        "the optimizer's state of parameter 0 has exp_avg of shape": {"optimizer": {"adamw": {"state": cut}}},
        "the optimizer's state of parameter 0 has exp_avg\\)": {"optimizer": {"adamw": {"state": {0: {"exp_avg": moments[0]["exp_avg"]}}}}},
        "RNG state": {"random": {"cpu": torch.zeros(3, dtype=torch.uint8), "cuda": []}},
        "cannot be resumed": {"random": {}},
        "seconds_per_step is 0": {"plan": {"seconds": 1.0, "seconds_per_step": 0.0, "seconds_per_evaluation": 0.0}},
        "seconds is inf": {"plan": {"seconds": float("inf"), "seconds_per_step": None, "seconds_per_evaluation": 0.0}},
        "best_val_loss is a str": {"best_val_loss": "low"},
    }
    for message, changes in damage.items():
        torch.save(content | changes, path)
        with pytest.raises(UserError, match=message):
            make_trainer(dataset_folder, tmp_path, hours=1.0).resume(load_checkpoint(path, mapped=False))
    for name, value in (("batch_size", None), ("seed", "x"), ("hours", "long")):
        torch.save(content | {"train_config": content["train_config"] | {name: value}}, path)
        trainer = make_trainer(dataset_folder, tmp_path)
        with pytest.raises(UserError, match="its settings are "):
            checkpoint_to_resume(trainer.config, trainer.task)
