"""Batches copied to the device ahead of their step."""

import dataclasses

import numpy as np
import pytest
import torch

from formats.batches import PADDING, Batch
from tests.training.counting import counting_batch
from training.device_batch import BatchCopier, DeviceBatch, batch_to_device


def test_every_part_of_a_batch_copied_ahead_is_on_the_device() -> None:
    ids = np.arange(24).reshape(4, 6)
    packed = Batch(ids, ids + 1, np.where(ids % 6 < 4, ids // 3, PADDING))
    for batch in (Batch(ids, ids + 1), packed, dataclasses.replace(packed, questions=Batch(ids + 2, ids + 3, ids))):
        ahead = BatchCopier(torch.device("cpu")).copy(batch)
        assert ahead.tokens == batch.tokens
        for part in (slice(0, 4), slice(1, 3), slice(3, 9)):
            assert isinstance(ahead[part], DeviceBatch)
            assert isinstance(ahead[part].questions, DeviceBatch) == (batch.questions is not None)
            for ours, theirs in ((ahead[part], batch[part]), (ahead[part].questions, batch[part].questions)):
                if ours and theirs:
                    pairs = zip(batch_to_device(ours, torch.device("cpu")), batch_to_device(theirs, torch.device("cpu")), strict=True)
                    assert all(torch.equal(first, second) for first, second in pairs)


def test_a_batch_that_does_not_fit_ahead_is_copied_by_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(array: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    batch = counting_batch(0)
    monkeypatch.setattr(torch, "from_numpy", fail)
    assert BatchCopier(torch.device("cpu")).copy(batch) is batch


def test_a_cpu_is_used_where_there_is_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch asks for the current GPU where a stream is None, and its MPS module has no answer."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert isinstance(BatchCopier(torch.device("cpu")).copy(counting_batch(0)), DeviceBatch)
