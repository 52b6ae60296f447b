"""A training task in memory: sequences that count upwards. Every model that works learns it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config import ModelConfig
from formats.batches import Batch, BatchSeries
from model import GPT
from presets import TRAIN_PRESETS
from tokens.tokenizer import Tokenizer
from training.loop import Trainer
from training.step import StepResult
from training.task import TrainingTask

SHAPE = ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=8, vocab_size=400)


def counting_batch(first: int, count: int = 4, length: int = SHAPE.block_size) -> Batch:
    """Sequences of consecutive numbers, each from a random start."""
    starts = np.random.default_rng(first).integers(0, 200, size=(count, 1))
    ids = (starts + np.arange(length + 1)) % SHAPE.vocab_size
    return Batch(ids[:, :-1].copy(), ids[:, 1:].copy())


def counting_task(tokenizer: Tokenizer) -> TrainingTask:
    return TrainingTask(
        stage="pretraining",
        tokenizer=tokenizer,
        order="backward",
        draw=counting_batch,
        validation=lambda batch_size: BatchSeries(1, lambda _: counting_batch(7)[:batch_size]),
        sample=lambda model, step: "",
    )


def make_trainer(dataset_folder: Path, out: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Trainer:
    """A trainer for the task, ready to run or to take single steps."""
    small = {"model": SHAPE, "batch_size": 4, "grad_accum": 1, "max_steps": 10, "warmup_steps": 2, "lr": 1e-2, "eval_every": 100}
    config = dataclasses.replace(TRAIN_PRESETS["xcoax"], **{"out_dir": str(out), "device": "cpu", **small, **changes})
    out.mkdir(exist_ok=True)
    torch.manual_seed(0)
    device = torch.device(config.device)
    return Trainer(config, GPT(config.model).to(device), counting_task(Tokenizer.load(dataset_folder)), device, dtype)


def measured_step(trainer: Trainer, batch: Batch) -> StepResult:
    """Take one step and wait for what it measured."""
    trainer.take_step(batch)
    [result] = trainer.read_steps()
    return result
