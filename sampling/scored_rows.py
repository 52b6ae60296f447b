"""Scores for rows: the sequences of many rows are scored together, and each row gets what is made of its own."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.pairs import Pair
from formats.tolerant_rows import Row
from sampling.scoring import Scorer
from system.errors import UserError
from tokens.prompt_format import FittedResponse, PromptFormat

ROWS_PER_BATCH = 256
SEQUENCES_PER_BATCH = 512  # or more, where one row has more

Sequences = list[tuple[list[int], list[int]]]  # a prompt, and the continuation to score
Logprobs = list[NDArray[np.float64]]  # of the ids of each continuation


class Unscored(NamedTuple):
    """What is scored for a row, and which fields come of it."""

    sequences: Sequences
    fields: Callable[[Logprobs], Row]


def score_rows(
    scorer: Scorer, rows: Iterator[Row | str], done: int, prepare: Callable[[Row], Unscored], rows_per_batch: int = ROWS_PER_BATCH
) -> Iterator[Row]:
    """Each row with its number and the fields that it gets; where `prepare` raises a UserError, with an `error` instead."""
    batch: list[tuple[Row, Unscored]] = []
    count = 0
    for read in rows:
        done += 1
        row: Row = {} if isinstance(read, str) else {name: value for name, value in read.items() if name not in ("row", "error")}
        unscored = Unscored([], lambda logprobs: {})
        try:
            if isinstance(read, str):
                raise UserError(read)
            unscored = prepare(row)
        except UserError as error:
            earlier = None if isinstance(read, str) else read.get("error")  # of the job that made this file
            row["error"] = earlier or str(error)
        batch.append(({"row": done, **row}, unscored))
        count += len(unscored.sequences)
        if len(batch) == rows_per_batch or count >= SEQUENCES_PER_BATCH:
            yield from _score_batch(scorer, batch)
            batch, count = [], 0
    yield from _score_batch(scorer, batch)


def fit_pair(prompt_format: PromptFormat, pair: Pair, block_size: int) -> tuple[list[int], FittedResponse]:
    """The ids of an instruction, and its response as far as it fits beside it; a pair that cannot be used is refused."""
    if pair.trouble:
        raise UserError(pair.trouble)
    if prompt_format.is_too_long(pair.instruction, block_size):
        raise UserError(f"the instruction has {len(pair.instruction):,} characters, too many for a context of {block_size}")
    instruction = prompt_format.encode(pair.instruction)
    response = prompt_format.fit_beside(instruction, pair.response, block_size)
    if response is None:
        raise UserError(f"the instruction has {len(instruction):,} tokens, too many for a context of {block_size} with its response")
    return instruction, response


def _score_batch(scorer: Scorer, batch: list[tuple[Row, Unscored]]) -> Iterator[Row]:
    scores = scorer.score([sequence for _, unscored in batch for sequence in unscored.sequences])
    for row, unscored in batch:
        yield row | unscored.fields([next(scores) for _ in unscored.sequences])
