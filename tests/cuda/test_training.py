"""Training on a GPU: every dtype and optimizer learns, nothing waits, memory that runs out, and resuming."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from config import IGNORE_INDEX, FinetuneConfig
from formats.batches import PADDING, Batch, BatchSeries
from formats.checkpoint import LAST, load_checkpoint
from system.device import explain_out_of_memory
from system.errors import UserError
from tests.cuda.conftest import SHAPE, assert_gradients_are_near, random_model
from tests.training.counting import counting_batch, make_trainer, measured_step
from training.device_batch import BatchCopier
from training.loop import Trainer
from training.metrics import read_metrics
from training.questions import BRANCHES
from training.step import Stepper

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BATCH = 8
LARGE_SHAPE = dataclasses.replace(SHAPE, n_layer=4, n_embed=256)  # hundreds of megabytes of activations in a large batch
LARGE_BATCH = 128


def batch_of(number: int, rows: int = BATCH) -> Batch:
    return counting_batch(number, rows, SHAPE.block_size)


def validation(micro_batch: int) -> BatchSeries:
    return BatchSeries(1, lambda _: batch_of(1000, micro_batch))


def gpu_trainer(dataset_folder: Path, out: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Trainer:
    settings = {"model": SHAPE, "batch_size": BATCH, "lr": 3e-3, "device": "cuda", **changes}
    return make_trainer(dataset_folder, out, dtype, **settings)


def losses_of(trainer: Trainer, steps: int) -> list[float]:
    return [measured_step(trainer, batch_of(step)).loss for step in range(steps)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_learns_as_on_a_cpu(dtype: torch.dtype, optimizer: str, dataset_folder: Path, tmp_path: Path) -> None:
    """Muon orthogonalizes in bfloat16 on a GPU, in float32 on a CPU."""
    on_gpu = losses_of(gpu_trainer(dataset_folder, tmp_path, dtype, optimizer=optimizer), 30)
    on_cpu = losses_of(gpu_trainer(dataset_folder, tmp_path, device="cpu", optimizer=optimizer), 30)
    assert on_gpu[-1] < on_gpu[0] - 1
    assert on_gpu == pytest.approx(on_cpu, rel=0.02 if (dtype, optimizer) == (torch.float32, "adamw") else 0.15)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_infinite_gradient_in_float16_skips_a_step(optimizer: str, dataset_folder: Path, tmp_path: Path) -> None:
    trainer = gpu_trainer(dataset_folder, tmp_path, torch.float16, optimizer=optimizer)
    overflows = False
    trainer.model.norm.weight.register_hook(lambda gradient: gradient * torch.inf if overflows else None)  # type: ignore[no-untyped-call]
    scales, changes = [], []
    for step in range(3):
        overflows = step == 1
        before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        measured_step(trainer, batch_of(step))
        scales.append(trainer.stepper.scaler.get_scale())
        changes.append([not torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True)])
    assert scales == [65536.0, 32768.0, 32768.0]
    assert [any(changed) for changed in changes] == [True, False, True]


@pytest.mark.parametrize(
    ("is_compiled", "dtype", "optimizer"),
    [
        (False, torch.float32, "adamw"),
        (False, torch.bfloat16, "muon"),
        (True, torch.bfloat16, "muon"),
    ],
)
def test_a_step_does_not_wait_for_the_gpu(
    is_compiled: bool, dtype: torch.dtype, optimizer: str, dataset_folder: Path, tmp_path: Path
) -> None:
    trainer = gpu_trainer(dataset_folder, tmp_path, dtype, optimizer=optimizer)
    if is_compiled:
        trainer.model.compile(dynamic=False)
    for step in range(2):
        trainer.take_step(batch_of(step))
    torch.cuda.set_sync_debug_mode("error")
    for step in range(2, 5):
        trainer.take_step(batch_of(step))
    with pytest.raises(RuntimeError, match="synchroniz"):
        trainer.read_steps()


@pytest.mark.parametrize("is_compiled", [False, True])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(
    is_compiled: bool, dataset_folder: Path, tmp_path: Path, leave_memory: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def loss_of_a_step() -> tuple[float, int]:
        trainer = gpu_trainer(dataset_folder, tmp_path, model=LARGE_SHAPE, batch_size=LARGE_BATCH)
        if is_compiled:
            trainer.model.compile(dynamic=False)
        return measured_step(trainer, batch_of(0, LARGE_BATCH)).loss, trainer.stepper.micro_batch

    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    expected, micro_batch = loss_of_a_step()
    assert micro_batch == LARGE_BATCH
    leave_memory((torch.cuda.max_memory_allocated() - before) // 2)
    loss, micro_batch = loss_of_a_step()
    assert micro_batch < LARGE_BATCH
    assert f"micro-batch size reduced to {micro_batch}" in capsys.readouterr().out
    assert loss == pytest.approx(expected, rel=1e-4)


def test_out_of_memory_in_the_optimizer_step_ends_in_one_line(
    dataset_folder: Path, tmp_path: Path, leave_memory: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the first step, in which the moments are made."""
    trainer = gpu_trainer(dataset_folder, tmp_path, model=LARGE_SHAPE)
    update = trainer.stepper.optimizer.step

    def update_without_memory() -> None:
        leave_memory(0)
        update()

    monkeypatch.setattr(trainer.stepper.optimizer, "step", update_without_memory)
    with pytest.raises(UserError, match=r"out of memory\. Tried to allocate .*Try less"), explain_out_of_memory("Try less"):
        trainer.take_step(batch_of(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("first", ["cuda", "cpu"])
def test_a_resumed_run_continues_like_an_uninterrupted_one(first: str, dtype: torch.dtype, dataset_folder: Path, tmp_path: Path) -> None:
    """The second half is on the GPU in any case, so the optimizers' state moves there; the random state of dropout is each device's own."""
    shape = dataclasses.replace(SHAPE, dropout=0.1 if first == "cuda" else 0.0)
    settings = {"model": shape, "optimizer": "muon", "log_every": 1, "eval_every": 5, "warmup_steps": 0, "min_lr_share": 1.0}

    def run(folder: Path, max_steps: int, device: str) -> None:
        trainer = gpu_trainer(dataset_folder, folder, dtype, max_steps=max_steps, device=device, **settings)
        trainer.task = dataclasses.replace(trainer.task, draw=batch_of, validation=validation)
        if (folder / LAST).is_file():
            trainer.resume(load_checkpoint(folder / LAST, mapped=False))
        trainer.run()

    run(tmp_path / "whole", 10, first)
    run(tmp_path / "halves", 5, first)
    run(tmp_path / "halves", 10, "cuda")
    losses = [[row["loss"] for row in read_metrics(tmp_path / name) if "loss" in row] for name in ("whole", "halves")]
    assert len(losses[0]) == 10
    assert losses[1] == pytest.approx(losses[0], rel=0.02 if first == "cuda" else 0.1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_questions_have_the_gradients_of_a_cpu(is_compiled: bool, dtype: torch.dtype, tolerance: float) -> None:
    """The questions themselves are never compiled; they come beside sequences that are, copied ahead by another stream."""
    segments = np.repeat([0, 1, 2, BRANCHES, BRANCHES + 1, BRANCHES + 2, PADDING], [96, 20, 24, 6, 20, 24, 66])
    ids = np.random.default_rng(0).integers(300, 400, (2, BATCH, SHAPE.block_size))
    targets = np.where(segments % BRANCHES * (segments != PADDING) > 0, ids[1], IGNORE_INDEX)
    packed = Batch(ids[0], ids[1], np.zeros_like(ids[0]), Batch(ids[0], targets, np.tile(segments, (BATCH, 1))))
    models = [random_model(torch.device(name)) for name in ("cuda", "cpu")]
    if is_compiled:
        models[0].compile(dynamic=False)
    for model, computed in zip(models, (dtype, torch.float32), strict=True):
        device = model.embedding.weight.device
        stepper = Stepper(FinetuneConfig(batch_size=BATCH), model, device, computed, print, question_weight=1)
        stepper.micro_batch = BATCH // 2
        stepper.accumulate_gradients(BatchCopier(device).copy(packed), packed.targets.size)
    assert_gradients_are_near(models[0].cpu(), models[1], tolerance)
