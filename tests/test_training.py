"""The training loop: golden losses, micro-batches, memory that runs out, losses that explode, what is saved when."""

import dataclasses
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoint import load_checkpoint
from config import IGNORE, ModelConfig, TrainConfig
from errors import Stopped, UserError
from metrics import draw_loss, read_metrics
from model import GPT
from presets import TRAIN_PRESETS
from session import require_room
from shards import Rows
from tokenizer import Tokenizer
from training import Task, Trainer


class Sequences:
    """A task in memory: count upwards. Learnt by every model that works."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def draw(self, first_row: int, rows: int) -> Rows:
        starts = np.random.default_rng(first_row).integers(0, 200, size=(rows, 1))
        ids = starts + np.arange(self.block_size + 1)
        return Rows(ids[:, :-1].copy(), ids[:, 1:].copy())

    def task(self, dataset_folder: Path) -> Task:
        tokenizer = Tokenizer.load(dataset_folder)
        return Task("pretraining", tokenizer, "backward", self.draw, lambda batch: [self.draw(7, 4)[:batch]], lambda model, step: "")


def make_trainer(dataset_folder: Path, out: Path, dtype: torch.dtype = torch.float32, **changes: object) -> Trainer:
    shape = ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=8, vocab_size=400)
    preset = dataclasses.replace(
        TRAIN_PRESETS["xcoax"], model=shape, out_dir=str(out), batch_size=4, grad_accum=1, max_steps=10, warmup_steps=2
    )
    config: TrainConfig = dataclasses.replace(preset, **{"lr": 1e-2, "eval_every": 100, **changes})  # type: ignore[arg-type]  # by name
    out.mkdir(exist_ok=True)
    torch.manual_seed(0)
    return Trainer(config, GPT(shape), Sequences(8).task(dataset_folder), torch.device("cpu"), dtype)


def test_micro_batches_add_up_to_the_whole_batch(dataset_folder: Path, tmp_path: Path) -> None:
    losses = []
    for micro_batch in (4, 2, 1, 3):
        trainer = make_trainer(dataset_folder, tmp_path)
        trainer.micro_batch = micro_batch
        losses.append([trainer.take_step(Sequences(8).draw(step, 4))["loss"] for step in range(6)])
    for row in losses[1:]:
        assert row == pytest.approx(losses[0], abs=1e-4)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_rows(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class SmallMemory(GPT):
        def forward(self, ids: torch.Tensor, targets: torch.Tensor | None = None, examples: torch.Tensor | None = None) -> torch.Tensor:
            if len(ids) > room:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(ids, targets)

    plain, small = make_trainer(dataset_folder, tmp_path), make_trainer(dataset_folder, tmp_path)
    small.model.__class__ = SmallMemory
    room = 1
    rows = Sequences(8).draw(0, 4)
    assert small.take_step(rows)["loss"] == pytest.approx(plain.take_step(rows)["loss"], abs=1e-5)
    assert small.micro_batch == 1
    assert "1 sequences in a micro-batch now, 4 micro-batches in a step" in capsys.readouterr().out
    for ours, theirs in zip(small.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    room = 0
    with pytest.raises(UserError, match="one sequence of 8 tokens does not fit"):
        small.take_step(rows)


def test_a_run_starts_where_not_even_the_first_evaluation_fits(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class SmallMemory(GPT):
        def forward(self, ids: torch.Tensor, targets: torch.Tensor | None = None, examples: torch.Tensor | None = None) -> torch.Tensor:
            if len(ids) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(ids, targets)

    trainer = make_trainer(dataset_folder, tmp_path, max_steps=3)
    trainer.model.__class__ = SmallMemory
    trainer.run()
    assert trainer.step == 3
    assert trainer.micro_batch == 2
    assert capsys.readouterr().out.count("out of memory") == 1


def test_a_loss_that_is_no_number_stops_the_run_and_changes_nothing(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    trainer.model.norm.weight.data.fill_(torch.nan)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(UserError, match=r"step 1: the loss is nan.*lower --lr"):
        trainer.take_step(Sequences(8).draw(0, 4))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_number_type_learns(dataset_folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, dtype, max_steps=40)
    losses = [trainer.take_step(Sequences(8).draw(step, 4))["loss"] for step in range(40)]
    assert losses[-1] < losses[0] - 0.5
    assert trainer.model.embedding.weight.dtype == torch.float32


def test_targets_that_are_ignored_weigh_nothing(dataset_folder: Path, tmp_path: Path) -> None:
    """The loss is a mean over counted targets of the whole step, however they fall into micro-batches."""
    rows = Sequences(8).draw(0, 4)
    rows.targets[0, 1:] = IGNORE
    rows.targets[3, :] = IGNORE
    first, second = make_trainer(dataset_folder, tmp_path), make_trainer(dataset_folder, tmp_path)
    second.micro_batch = 1
    assert first.take_step(rows)["loss"] == pytest.approx(second.take_step(rows)["loss"], abs=1e-5)
    assert first.tokens == 17


def test_golden_losses(dataset_folder: Path, tmp_path: Path) -> None:
    """Numbers you can see: whoever changes the arithmetic of a step changes these."""
    trainer = make_trainer(dataset_folder, tmp_path)
    losses = [trainer.take_step(Sequences(8).draw(step, 4))["loss"] for step in range(10)]
    assert losses == pytest.approx(GOLDEN_LOSSES, abs=5e-3)


GOLDEN_LOSSES = [5.9960, 5.9399, 5.9086, 5.9592, 5.8900, 5.9240, 5.8762, 5.8732, 5.8999, 5.8557]


def test_memory_does_not_grow_over_a_run(dataset_folder: Path, tmp_path: Path) -> None:
    import psutil

    trainer = make_trainer(dataset_folder, tmp_path)
    for step in range(50):
        trainer.take_step(Sequences(8).draw(step, 4))
    before = psutil.Process().memory_info().rss
    for step in range(300):
        trainer.take_step(Sequences(8).draw(step, 4))
    assert psutil.Process().memory_info().rss - before < 8 << 20


def test_the_picture_of_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens": 5, "loss": 2.0}\n{"step": 2, "tok')
    assert draw_loss(tmp_path).is_file()
    assert len(read_metrics(tmp_path)) == 1


def test_weights_that_lead_to_no_number_are_not_saved(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=4, eval_every=2)
    trainer.run()
    before = (tmp_path / "last_checkpoint.pt").read_bytes()
    again = make_trainer(dataset_folder, tmp_path, max_steps=8, eval_every=2)
    again.resume(load_checkpoint(tmp_path / "last_checkpoint.pt", mapped=False))
    again.step = 6  # at an evaluation
    again.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="step 6: the validation loss is nan; nothing after step 4 is saved"):
        again.run()
    assert (tmp_path / "last_checkpoint.pt").read_bytes() == before


def test_a_best_checkpoint_lost_between_two_writes_is_made_again(dataset_folder: Path, tmp_path: Path) -> None:
    make_trainer(dataset_folder, tmp_path, max_steps=4, eval_every=4).run()
    (tmp_path / "best_checkpoint.pt").unlink()
    again = make_trainer(dataset_folder, tmp_path, max_steps=8, eval_every=4)
    again.resume(load_checkpoint(tmp_path / "last_checkpoint.pt", mapped=False))
    assert load_checkpoint(tmp_path / "best_checkpoint.pt").step == 4


def test_float16_that_never_becomes_finite_stops(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, torch.float16)
    for parameter in trainer.model.parameters():
        parameter.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[no-untyped-call]  # torch's gap
    with pytest.raises(UserError, match="gradient's norm"):
        for step in range(60):
            trainer.take_step(Sequences(8).draw(step, 4))
    assert 10 < trainer.step < 40  # the scale was lowered first


def test_a_signal_before_the_first_step_promises_nothing(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    trainer.signals.received = signal.SIGINT
    with pytest.raises(Stopped, match="stopped at step 0, before there was anything to save"):
        trainer.run()
    assert not (tmp_path / "last_checkpoint.pt").exists()


def test_room_is_asked_for_only_where_it_is_needed(dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=2)
    size = 4 * trainer.model.count_parameters()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=4 * size))
    with pytest.raises(UserError, match="the checkpoints need"):
        require_room(tmp_path, trainer.model)
    trainer.run()
    require_room(tmp_path, trainer.model)
