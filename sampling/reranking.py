"""Reverse reward: several answers to one instruction, sorted by how likely each makes the instruction.

The score of an answer is log P(instruction | answer), divided by the tokens of the instruction with its end: these are the same for all
answers of a row. Where the row has the log-probability of each answer under the forward model that wrote it, this is divided by the
tokens of the answer, whole, in our tokenizer, and added. Without the division short answers would win, since each token costs.
"""

import sys
from collections.abc import Iterator
from functools import partial

from formats.pairs import ANSWERS, INSTRUCTIONS, answer_fields, clean_text, pairs_with_answers
from formats.tolerant_rows import Row
from formats.utf8 import is_unicode
from sampling.file_jobs import Job
from sampling.scored_rows import Logprobs, Unscored, fit_pair, score_rows
from sampling.scoring import Scorer
from system.errors import UserError
from tokens.prompt_format import PromptFormat

LOGPROBS = "logprobs"  # of each answer under a forward model: the sum over its tokens, in nats


def reranking_job(source: str, scorer: Scorer, prompt_format: PromptFormat) -> Job:
    """The job that sorts the answers in each row of a file."""
    wanted = partial(answer_fields, source=source)
    return Job(source, wanted, lambda rows, done: rerank(scorer, prompt_format, rows, done), {"work": "reranking"})


def rerank(scorer: Scorer, prompt_format: PromptFormat, rows: Iterator[Row | str], done: int = 0) -> Iterator[Row]:
    """Each row with its answers best first, their scores, their `order` (the place where each was, from 0), and which were cut."""
    return score_rows(scorer, rows, done, partial(_prepare, prompt_format, scorer.model.config.block_size))


def _prepare(prompt_format: PromptFormat, block_size: int, row: Row) -> Unscored:
    """What is scored for a row; a row that cannot be used is refused."""
    _check_answers(row)
    added = [0.0] * len(row[ANSWERS])
    sequences, cut = [], []
    for index, pair in enumerate(pairs_with_answers(row)):
        instruction, response = fit_pair(prompt_format, pair, block_size)
        sequences.append((prompt_format.prompt(response.ids), [*instruction, *prompt_format.after_instruction]))
        cut.append(response.is_cut)
        if row.get(LOGPROBS) is not None:
            added[index] = row[LOGPROBS][index] / len(prompt_format.encode(pair.response) if response.is_cut else response.ids)

    def fields(logprobs: Logprobs) -> Row:
        # Rounded first: a difference that comes from the batch alone does not change the order of equal answers.
        scores = [round(float(given.mean()) + forward, 5) for given, forward in zip(logprobs, added, strict=True)]
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        lists = {ANSWERS: row[ANSWERS], LOGPROBS: row.get(LOGPROBS), "scores": scores, "cut": cut}
        return {name: [values[index] for index in order] for name, values in lists.items() if values is not None} | {"order": order}

    return Unscored(sequences, fields)


def _check_answers(row: Row) -> None:
    """Refuse a row whose instruction is missing, or whose answers or their log-probabilities cannot be used."""
    if all(row.get(name) is None for name in INSTRUCTIONS):
        raise UserError(f"no instruction in {' or '.join(INSTRUCTIONS)}")
    answers, logprobs = row.get(ANSWERS), row.get(LOGPROBS)
    if not isinstance(answers, list) or not answers:
        raise UserError(f"no list of texts in {ANSWERS}" if answers != [] else f"no text in {ANSWERS}: the list is empty")
    for number, answer in enumerate(answers, start=1):
        if not isinstance(answer, str):
            raise UserError(f"answer {number} of {len(answers)} is not text")
        if not clean_text(answer):
            raise UserError(f"answer {number} of {len(answers)} is empty")
        if not is_unicode(answer):
            raise UserError(f"answer {number} of {len(answers)} is invalid UTF-8")
    if logprobs is None:
        return
    if not isinstance(logprobs, list) or len(logprobs) != len(answers):
        found = f"{len(logprobs)} numbers" if isinstance(logprobs, list) else "no list"
        raise UserError(f"{LOGPROBS} has {found} for {len(answers)} answers")
    for number, value in enumerate(logprobs, start=1):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise UserError(f"number {number} of {LOGPROBS} is not a finite number")
