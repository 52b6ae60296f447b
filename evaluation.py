"""Metrics as functions of a model and data."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from config import IGNORE
from device import autocast
from model import GPT
from shards import Rows


class Loss(NamedTuple):
    """How well a model predicts text."""

    nats_per_token: float
    bits_per_byte: float  # the same, independent of the tokenizer


def to_device(rows: Rows, device: torch.device) -> list[torch.Tensor]:
    """The arguments of a model that is to give the loss of the rows."""
    arrays = [array for array in (rows.inputs, rows.targets, rows.examples) if array is not None]
    tensors = [torch.from_numpy(array) for array in arrays]
    return [tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device) for tensor in tensors]


@torch.no_grad()
def measure_loss(model: GPT, batches: Iterable[Rows], bytes_per_id: NDArray[np.int64], dtype: torch.dtype) -> Loss:
    """The mean loss over all targets of the batches. The model stays in evaluation mode."""
    device = model.embedding.weight.device
    model.eval()
    nats, tokens, text_bytes = 0.0, 0, 0
    for rows in batches:
        with autocast(device, dtype):
            nats += model(*to_device(rows, device)).item()
        counted = rows.targets[rows.targets != IGNORE]
        tokens += len(counted)
        text_bytes += int(bytes_per_id[counted].sum())
    assert tokens, "nothing to measure"
    return Loss(nats / tokens, nats / math.log(2) / max(text_bytes, 1))
