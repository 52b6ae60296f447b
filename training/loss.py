"""Batches on the device, and the loss of a model on them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from config import IGNORE_INDEX
from formats.batches import Batch
from model import GPT
from system.device import autocast, send


class Loss(NamedTuple):
    """How well a model predicts text; lower is better."""

    nats_per_token: float
    bits_per_byte: float  # the same, independent of the tokenizer


@dataclass(frozen=True)
class DeviceBatch(Batch):
    """A batch that has already been copied to the device."""

    tensors: tuple[torch.Tensor, ...] = ()

    def __getitem__(self, part: slice) -> "DeviceBatch":
        batch = super().__getitem__(part)
        return DeviceBatch(batch.inputs, batch.targets, batch.segment_ids, tuple(tensor[part] for tensor in self.tensors))


class BatchCopier:
    """Copies batches to a device ahead of their step, in another thread: on CUDA through a stream of its own, while the device computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch's gap

    def copy(self, batch: Batch) -> Batch:
        """The batch, on the device if it can be."""
        if self._device.type == "mps":  # PyTorch uses it from one thread only
            return batch
        try:
            with torch.cuda.stream(self._stream):  # without a stream it does nothing
                tensors = tuple(_copy(batch, self._device))
        except torch.OutOfMemoryError:
            return batch  # the step copies it in parts, and makes them smaller until they fit
        if self._stream:
            self._stream.synchronize()  # this thread waits for the copy, so that the step need not
        return DeviceBatch(batch.inputs, batch.targets, batch.segment_ids, tensors)


def batch_to_device(batch: Batch, device: torch.device) -> list[torch.Tensor]:
    """The arguments with which a model returns the loss of the batch."""
    if not isinstance(batch, DeviceBatch):
        return _copy(batch, device)
    for tensor in batch.tensors:
        if tensor.is_cuda:  # or the copier's stream could reuse its memory while a step that was only launched still reads it
            tensor.record_stream(torch.cuda.current_stream(device))
    return list(batch.tensors)


def _copy(batch: Batch, device: torch.device) -> list[torch.Tensor]:
    arrays = [array for array in (batch.inputs, batch.targets, batch.segment_ids) if array is not None]
    return [send(torch.from_numpy(array), device) for array in arrays]


@torch.no_grad()
def measure_loss(model: GPT, batches: Iterable[Batch], bytes_per_id: NDArray[np.int64], dtype: torch.dtype) -> Loss:
    """The mean loss over all targets of the batches. The model stays in evaluation mode."""
    device = model.embedding.weight.device
    model.eval()
    nats, tokens, text_bytes = 0.0, 0, 0
    for batch in batches:
        with autocast(device, dtype):
            nats += model(*batch_to_device(batch, device)).item()
        counted = batch.targets[batch.targets != IGNORE_INDEX]
        tokens += len(counted)
        text_bytes += int(bytes_per_id[counted].sum())
    assert tokens, "nothing to measure"
    return Loss(nats / tokens, nats / math.log(2) / max(text_bytes, 1))
