"""Metrics as functions of a model and data."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from config import IGNORE
from device import autocast
from figures import Values
from model import GPT
from packing import Example, shortened
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
    for together in portions(documents, len, scorer):
        windows = [list(spans(ids, block_size, stride)) for ids in together]
        scores = scorer.score([window for parts in windows for window in parts])
        for parts in windows:
            yield np.concatenate([next(scores) for _ in parts])


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


def candidate_logprobs(scorer: Scorer, prompt: NDArray[np.int64], begin: int, candidates: Sequence[list[int]]) -> Values:
    """Log P of each of the instructions after one response, which is read once; `begin` ids stand before the response.

    For a candidate that does not fit beside it, the response loses what lies farthest from it, as in training.
    """
    by_room: dict[int, list[int]] = defaultdict(list)
    prompts: dict[int, list[int]] = {}
    for index, candidate in enumerate(candidates):
        fitted = shortened(prompt, len(candidate), begin, scorer.model.config.block_size)
        by_room[len(fitted)].append(index)
        prompts[len(fitted)] = fitted.tolist()
    found = np.zeros(len(candidates))
    for room, indices in by_room.items():
        found[indices] = [logprobs.sum() for logprobs in scorer.score_after(prompts[room], [candidates[index] for index in indices])]
    return found


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
