"""Metrics as functions of a model and data."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from config import IGNORE
from device import autocast
from figures import Values
from model import GPT
from packing import Example
from scoring import Scorer
from shards import Rows

READ_TOGETHER = 4  # full batches that are packed together: packing has more to choose from than in one

Item = TypeVar("Item")


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


def document_logprobs(scorer: Scorer, documents: Iterable[list[int]], stride: int) -> Iterator[Values]:
    """Log P of every id of each document but its first, the boundary; each id counts once, with what the stride leaves it to see."""
    block_size = scorer.model.config.block_size
    windows = ((number, *window) for number, ids in enumerate(documents) for window in spans(ids, block_size, stride))
    current, parts = 0, list[Values]()
    for together in portions(windows, lambda window: len(window[1]) + len(window[2]), scorer):
        scores = scorer.score([(read, foretold) for _, read, foretold in together])
        for (number, _, _), logprobs in zip(together, scores, strict=True):
            if number != current:
                yield np.concatenate(parts)
                current, parts = number, []
            parts.append(logprobs)
    if parts:
        yield np.concatenate(parts)


def spans(ids: list[int], block_size: int, stride: int) -> Iterator[tuple[list[int], list[int]]]:
    """The windows over a document: what is read, and what is foretold behind it.

    A window is as long as the context and moves by `stride`: behind the first, no id has less than the context but the stride
    before it.
    """
    end = 1
    while end < len(ids):
        start, end = end, min(end + (stride if end > 1 else block_size), len(ids))
        yield ids[max(0, end - block_size - 1) : start], ids[start:end]


def instruction_logprobs(scorer: Scorer, examples: Sequence[Example]) -> Iterator[float]:
    """Log P of each example's instruction and of the mark at its end, after its response."""
    for together in portions(examples, lambda example: example.length, scorer):
        pairs = [(example.ids[: example.prompt].tolist(), example.ids[example.prompt :].tolist()) for example in together]
        yield from (float(logprobs.sum()) for logprobs in scorer.score(pairs))


def portions(items: Iterable[Item], length: Callable[[Item], int], scorer: Scorer) -> Iterator[list[Item]]:
    """The items in portions that make some full batches each."""
    limit = READ_TOGETHER * scorer.rows * scorer.model.config.block_size
    portion: list[Item] = []
    size = 0
    for item in items:
        portion.append(item)
        size += length(item)
        if size >= limit:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
