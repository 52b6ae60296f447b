"""Owns what all parts of one benchmark run share: settings, device, dtype, a folder for temporary files, repeats as progress."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from config import BenchmarkConfig, LoopConfig
from model import GPT
from training.step import first_micro_batch


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark."""

    config: BenchmarkConfig
    device: torch.device
    dtype: torch.dtype
    scratch: Path  # an empty folder beside the results
    progress: "tqdm[Any]"

    def show(self, what: str) -> None:
        """Show what is measured now."""
        self.progress.set_description_str(what)

    def repeats(self, part: str) -> Iterator[int]:
        """The numbers of the repeats, each shown when it begins."""
        for number in range(self.config.repeats):
            self.show(f"{part}, repeat {number + 1} of {self.config.repeats}")
            yield number
            self.progress.update()

    @cached_property
    def loop(self) -> LoopConfig:
        """The recipe of the preset's training, with the shape and the batch that is measured."""
        config = self.config
        loop = dataclasses.replace(config.train, model=config.model, optimizer=config.optimizer)
        if config.batch_size:
            return dataclasses.replace(loop, batch_size=config.batch_size, grad_accum=1)
        if self.device.type == "cuda":
            return loop
        with torch.device("meta"):
            model = GPT(config.model)
        return dataclasses.replace(loop, batch_size=first_micro_batch(loop, model, self.device), grad_accum=1)

    @property
    def flops_unit(self) -> tuple[str, float]:
        """The unit of arithmetic that reads well on this device, and how many operations per second it is."""
        return ("TFLOP/s", 1e12) if self.device.type == "cuda" else ("GFLOP/s", 1e9)

    @property
    def dtype_name(self) -> str:
        return short_name(self.dtype)


def short_name(dtype: torch.dtype) -> str:
    """The name of a dtype as the flags have it."""
    return str(dtype).removeprefix("torch.")
