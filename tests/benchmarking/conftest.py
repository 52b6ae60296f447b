"""A run of the benchmark on a tiny model, for tests of its parts."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from benchmarking.bench import Bench
from config import ModelConfig
from presets import BENCHMARK_PRESETS


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Of a model and a step so small that one of each figure takes no time; a figure that nobody reads needs no long sample."""
    for module in ("timing", "training_speed"):
        monkeypatch.setattr(f"benchmarking.{module}.SAMPLE_SECONDS", 1e-9)
    shape = ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=32, vocab_size=128)
    config = dataclasses.replace(
        BENCHMARK_PRESETS["demo"],
        model=shape,
        batch_size=4,
        repeats=1,
        prompt_tokens=4,
        tokens=3,
        rows=(1, 3),
        device="cpu",
        dtype="float32",
    )
    return Bench(config, torch.device("cpu"), torch.float32, tmp_path, tqdm(disable=True))
