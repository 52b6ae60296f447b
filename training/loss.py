"""The loss of a model on batches."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from config import IGNORE_INDEX
from formats.batches import Batch
from model import GPT
from system.device import autocast
from training.device_batch import batch_to_device


class Loss(NamedTuple):
    """How well a model predicts text: the sum of the cross-entropy, and what it is a sum over."""

    nats: float
    tokens: float
    text_bytes: float

    @property
    def nats_per_token(self) -> float:
        assert self.tokens, "nothing was measured"
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """The same, independent of the tokenizer."""
        return self.nats / math.log(2) / max(self.text_bytes, 1)


@torch.no_grad()
def measure_loss(model: GPT, batches: Iterable[Batch], bytes_per_id: NDArray[np.int64], dtype: torch.dtype) -> Loss:
    """The loss over all targets of the batches. The model stays in evaluation mode."""
    device = model.embedding.weight.device
    model.eval()
    nats, tokens, text_bytes = 0.0, 0, 0
    for batch in batches:
        with autocast(device, dtype):
            nats += model(*batch_to_device(batch, device)).item()
        counted = batch.targets[batch.targets != IGNORE_INDEX]
        tokens += len(counted)
        text_bytes += int(bytes_per_id[counted].sum())
    return Loss(nats, tokens, text_bytes)
