"""torch.compile: after the first steps nothing is compiled again, and packed examples train alike with FlexAttention."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from config import FinetuneConfig, LoopConfig, ModelConfig
from formats.checkpoint import load_checkpoint
from model import GPT
from presets import TRAIN_PRESETS
from training.loop import Trainer
from training.metrics import read_metrics
from training.pretraining import open_training_data, pretraining_task
from training.task import TrainingTask
from training.tuning import Tuning, open_tuning_data

LOOP: dict[str, Any] = {"grad_accum": 1, "eval_every": 4, "log_every": 1, "device": "cpu", "optimizer": "muon"}


@pytest.fixture(autouse=True)
def without_earlier_graphs() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def graphs_at_evaluations(config: LoopConfig, task: TrainingTask, model: GPT, micro_batch: int) -> list[int]:
    """Train, and count at each evaluation, the one before the first step included, the graphs that were compiled so far."""
    found: list[int] = []

    def sample(model: GPT, step: int) -> str:
        found.append(counters["stats"]["unique_graphs"])
        return task.sample(model, step)

    Path(config.out_dir).mkdir()
    trainer = Trainer(config, model, dataclasses.replace(task, sample=sample), torch.device("cpu"), torch.float32)
    trainer.stepper.micro_batch = micro_batch
    counters.clear()
    model.compile(dynamic=False, fullgraph=True, backend="eager")  # what is compiled again depends on the tracer, not on the backend
    trainer.run()
    return found


def test_nothing_is_compiled_after_the_first_steps(dataset_folder: Path, tmp_path: Path) -> None:
    """Micro-batches of two sizes, a smaller last batch of an evaluation, samples, and the ends of several epochs."""
    shape = ModelConfig(n_layer=1, n_head=2, n_embed=32, block_size=256, vocab_size=400)
    config = dataclasses.replace(
        TRAIN_PRESETS["xcoax"],
        model=shape,
        data_dir=str(dataset_folder),
        out_dir=str(tmp_path / "out"),
        batch_size=31,
        max_steps=12,
        **LOOP,
    )
    dataset, tokenizer = open_training_data(config)
    epochs = config.max_steps * config.sequences_per_step * shape.block_size / len(dataset.stream("train"))
    assert epochs > 3
    graphs = graphs_at_evaluations(config, pretraining_task(config, dataset, tokenizer), GPT(shape), micro_batch=12)
    assert graphs == [1, 3, 3, 3]  # of an evaluation; of micro-batches of 12 and of 7


def test_packed_examples_train_alike_with_flex_attention_and_are_compiled_once(
    base: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a check of the device forbids FlexAttention's plain formulas to compute gradients on a CPU."""
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *tensors: None)
    losses, graphs = [], []
    for uses_flex_attention in (False, True):
        monkeypatch.setattr(GPT, "_uses_flex_attention", lambda self, device, answer=uses_flex_attention: answer)
        torch.compiler.reset()
        out = tmp_path / str(uses_flex_attention)
        config = FinetuneConfig(
            data_dir=str(pairs), out_dir=str(out), epochs=0.8, batch_size=5, eval_pairs=12, dropout=0.0, lr=1e-3, **LOOP
        )
        checkpoint = load_checkpoint(base)
        tuning = Tuning(config, checkpoint, open_tuning_data(config, checkpoint))
        torch.manual_seed(0)
        graphs.append(graphs_at_evaluations(tuning.config, tuning.task(), tuning.base.make_model(torch.device("cpu")), micro_batch=5))
        losses.append([row.get("loss", row.get("val_loss")) for row in read_metrics(out)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for found in graphs:
        assert found[:2] == [1, 2]
        assert set(found[2:]) == {2}
