"""Batches on the device, copied there ahead of their step."""

import contextlib
from dataclasses import dataclass

import torch

from formats.batches import Batch
from system.device import send


@dataclass(frozen=True)
class DeviceBatch(Batch):
    """A batch that has already been copied to the device."""

    tensors: tuple[torch.Tensor, ...] = ()

    def __getitem__(self, part: slice) -> "DeviceBatch":
        batch = super().__getitem__(part)
        tensors = tuple(tensor[part] for tensor in self.tensors)
        return DeviceBatch(batch.inputs, batch.targets, batch.segment_ids, batch.questions, tensors)


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
            # Not torch.cuda.stream(None): that asks for the current GPU, where there may be none.
            with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
                tensors = tuple(_copy(batch, self._device))
                questions = self.copy(batch.questions) if batch.questions else None
        except torch.OutOfMemoryError:
            return batch  # the step copies it in parts, and makes them smaller until they fit
        if self._stream:
            self._stream.synchronize()  # this thread waits for the copy, so that the step need not
        return DeviceBatch(batch.inputs, batch.targets, batch.segment_ids, questions, tensors)


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
