"""Log-probabilities of documents and of instructions under a model."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from evaluation.bootstrap import Values
from sampling.scoring import Scorer
from training.examples import Example

BATCHES_PER_GROUP = 4  # packing wastes less when it chooses from several batches at once

Item = TypeVar("Item")


def document_logprobs(scorer: Scorer, documents: Iterable[list[int]], stride: int) -> Iterator[Values]:
    """Log P of each id of each document except the first id, the boundary.

    Each id is scored once, in a window that moves by `stride`.
    """
    block_size = scorer.model.config.block_size
    windows = ((index, *window) for index, ids in enumerate(documents) for window in sliding_windows(ids, block_size, stride))
    current, parts = 0, list[Values]()
    for group in grouped(windows, lambda window: len(window[1]) + len(window[2]), scorer):
        scores = scorer.score([(context, predicted) for _, context, predicted in group])
        for (index, _, _), logprobs in zip(group, scores, strict=True):
            if index != current:
                yield np.concatenate(parts)
                current, parts = index, []
            parts.append(logprobs)
    if parts:
        yield np.concatenate(parts)


def sliding_windows(ids: list[int], block_size: int, stride: int) -> Iterator[tuple[list[int], list[int]]]:
    """The windows over a document: the ids that the model reads first, and the ids that it then predicts.

    A window has the length of the context and moves by `stride`. So each id after the first window is predicted from at
    least `block_size - stride` ids.
    """
    end = 1
    while end < len(ids):
        start, end = end, min(end + (stride if end > 1 else block_size), len(ids))
        yield ids[max(0, end - block_size - 1) : start], ids[start:end]


def instruction_logprobs(scorer: Scorer, examples: Iterable[Example]) -> Iterator[float]:
    """Log P of each example's instruction and its end token, given its response."""
    for group in grouped(examples, lambda example: example.length, scorer):
        pairs = [(example.ids[: example.prompt_length].tolist(), example.ids[example.prompt_length :].tolist()) for example in group]
        yield from (float(logprobs.sum()) for logprobs in scorer.score(pairs))


def grouped(items: Iterable[Item], length: Callable[[Item], int], scorer: Scorer) -> Iterator[list[Item]]:
    """The items in groups of about `BATCHES_PER_GROUP` full batches."""
    limit = BATCHES_PER_GROUP * scorer.batch_size * scorer.model.config.block_size
    group: list[Item] = []
    size = 0
    for item in items:
        group.append(item)
        size += length(item)
        if size >= limit:
            yield group
            group, size = [], 0
    if group:
        yield group
