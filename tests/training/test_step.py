"""One training step: golden losses, micro-batches, running out of memory, losses that are not finite."""

from pathlib import Path

import psutil
import pytest
import torch

from config import IGNORE_INDEX
from model import GPT
from system.errors import UserError
from tests.reads import CountReads
from tests.training.counting import counting_batch, make_trainer, measured_step

GOLDEN_LOSSES = [5.9960, 5.9399, 5.9086, 5.9592, 5.8900, 5.9240, 5.8762, 5.8732, 5.8999, 5.8557]


class SmallMemory(GPT):
    """A model whose device has memory for only a few sequences."""

    largest_batch: int

    def forward(self, ids: torch.Tensor, targets: torch.Tensor | None = None, segment_ids: torch.Tensor | None = None) -> torch.Tensor:
        if len(ids) > self.largest_batch:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(ids, targets)


def limit_memory(model: GPT, largest_batch: int) -> None:
    """From now on the model fails with more sequences than this."""
    model.__class__ = SmallMemory
    vars(model)["largest_batch"] = largest_batch


def test_golden_losses(dataset_folder: Path, tmp_path: Path) -> None:
    """Any change to the arithmetic of a step changes these numbers."""
    trainer = make_trainer(dataset_folder, tmp_path)
    losses = [measured_step(trainer, counting_batch(step)).loss for step in range(10)]
    assert losses == pytest.approx(GOLDEN_LOSSES, abs=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_learns_in_every_dtype(dataset_folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, dtype, max_steps=40)
    losses = [measured_step(trainer, counting_batch(step)).loss for step in range(40)]
    assert losses[-1] < losses[0] - 0.5
    assert trainer.model.embedding.weight.dtype == torch.float32


def test_micro_batches_add_up_to_the_whole_batch(dataset_folder: Path, tmp_path: Path) -> None:
    losses = []
    for micro_batch in (4, 2, 1, 3):
        trainer = make_trainer(dataset_folder, tmp_path)
        trainer.stepper.micro_batch = micro_batch
        losses.append([measured_step(trainer, counting_batch(step)).loss for step in range(6)])
    for in_parts in losses[1:]:
        assert in_parts == pytest.approx(losses[0], abs=1e-4)


def test_the_loss_is_a_mean_over_the_targets_of_the_whole_step(dataset_folder: Path, tmp_path: Path) -> None:
    """Ignored targets do not count, in whichever micro-batch they are."""
    batch = counting_batch(0)
    batch.targets[0, 1:] = IGNORE_INDEX
    batch.targets[3, :] = IGNORE_INDEX
    whole, in_parts = make_trainer(dataset_folder, tmp_path), make_trainer(dataset_folder, tmp_path)
    in_parts.stepper.micro_batch = 1
    assert measured_step(whole, batch).loss == pytest.approx(measured_step(in_parts, batch).loss, abs=1e-5)
    assert whole.tokens == 17


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large, small = make_trainer(dataset_folder, tmp_path), make_trainer(dataset_folder, tmp_path)
    limit_memory(small.model, 1)
    batch = counting_batch(0)
    assert measured_step(small, batch).loss == pytest.approx(measured_step(large, batch).loss, abs=1e-5)
    assert small.stepper.micro_batch == 1
    assert "micro-batch size reduced to 1 (4 per step)" in capsys.readouterr().out
    for ours, theirs in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    limit_memory(small.model, 0)
    with pytest.raises(UserError, match="one sequence of 8 tokens does not fit"):
        small.take_step(batch)


def test_a_run_starts_even_if_the_first_evaluation_runs_out_of_memory(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, max_steps=3)
    limit_memory(trainer.model, 2)
    trainer.run()
    assert trainer.step == 3
    assert trainer.stepper.micro_batch == 2
    assert capsys.readouterr().out.count("out of memory") == 1


def test_float16_gradients_that_stay_infinite_stop_the_run(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path, torch.float16)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for parameter in trainer.model.parameters():
        parameter.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[no-untyped-call]  # torch's gap
    with pytest.raises(UserError, match=r"the loss is \d.*gradient norm (inf|nan)"):
        for step in range(60):
            measured_step(trainer, counting_batch(step))
    assert 10 < trainer.step < 40  # the scale was lowered first
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name  # every step was skipped


@pytest.mark.parametrize(("dtype", "count"), [(torch.float32, 0), (torch.bfloat16, 0), (torch.float16, 1)])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_reads_nothing_from_the_device(
    optimizer: str, dtype: torch.dtype, count: int, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But the norm in float16, to skip the step if it is infinite."""
    trainer = make_trainer(dataset_folder, tmp_path, dtype, optimizer=optimizer)
    with CountReads(monkeypatch) as reads:
        trainer.take_step(counting_batch(0))
        assert reads.count == count
        trainer.stepper._unread[0].measured[0].item()
        assert reads.count == count + 1  # it does count


def test_memory_does_not_grow_over_a_run(dataset_folder: Path, tmp_path: Path) -> None:
    trainer = make_trainer(dataset_folder, tmp_path)
    for step in range(50):
        trainer.take_step(counting_batch(step))
    before = psutil.Process().memory_info().rss
    for step in range(300):
        trainer.take_step(counting_batch(step))
    assert psutil.Process().memory_info().rss - before < 8 << 20
