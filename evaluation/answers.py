"""The answers section: how often an instruction finds its true answer among others, which is what reranking answers needs."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Values
from evaluation.candidates import COLUMNS, Candidates, add_rows, draw_candidates, make_candidates
from evaluation.held_out import HeldOutPair
from evaluation.logprobs import instruction_logprobs
from evaluation.recovery import WORDS, Recovery
from evaluation.report import Section, with_progress
from evaluation.text_overlap import BM25Index
from formats.batches import evenly_spaced
from system.amounts import amount
from training.examples import Example

# The model reads each answer again for each instruction, while ranking reads a response once for all its instructions: so fewer of both.
MAX_OTHERS = 100
QUESTIONS_SHARE = 1 / 4
REVERSE, LENGTH = "log P(instruction | answer)", "the longest answer"


def measure_answers(recovery: Recovery, pool: Sequence[HeldOutPair], sizes: Sequence[int], limit: int) -> Section:
    """Rank the true answer to a quarter of `limit` instructions among as many others as `sizes` say, drawn from the pool."""
    section = Section("Answers: the true answer among others", COLUMNS, rest_on="instruction")
    # All answers are cut to the same room, so that their length does not reveal the true one. It is at least half of the context.
    longest = recovery.model.block_size // 2 - recovery.prompt_format.overhead
    candidates = make_candidates((pair.instruction, pair.response) for pair in pool)
    wanted = sorted({min(size, MAX_OTHERS) for size in sizes})
    possible = [size for size in wanted if size <= candidates.available]
    for size in wanted[len(possible) :]:
        section.notes.append(f"{amount(size, 'other')}: left out. An instruction has only {amount(candidates.available, 'other answer')}.")
    usable = [pair for pair in recovery.pairs if len(pair.instruction_ids) <= longest and pair.response in candidates.index_of]
    questions = [usable[index] for index in evenly_spaced(len(usable), math.ceil(QUESTIONS_SHARE * limit)).tolist()]
    if not possible or not questions:
        return section
    drawn = draw_candidates([(pair.instruction, pair.response) for pair in questions], candidates, possible[-1], recovery.seed)
    add_rows(section, _score_answers(recovery, questions, candidates, drawn), possible, recovery.seed)
    section.notes += [
        f"{amount(len(questions), 'instruction')}. The other answers are drawn from {len(candidates.all):,} distinct ones and "
        "belong to a different instruction. Each smaller set is part of the larger. A tie counts as the mean over the possible orders.",
        f"A quarter of the questions of ranking, and at most {MAX_OTHERS} others: the model reads each answer again for each instruction. "
        "BM25 and length see whole answers; the model reads what fits beside the longest instruction.",
    ]
    return section


def _score_answers(
    recovery: Recovery, questions: Sequence[HeldOutPair], candidates: Candidates[str], drawn: NDArray[np.int64]
) -> dict[str, Values]:
    """The scores of the drawn answers in each way, all shaped like `drawn`."""
    words = BM25Index(candidates.all)
    overlap = np.array([words.scores(question.instruction)[chosen] for question, chosen in zip(questions, drawn, strict=True)])
    lengths = np.array([len(answer) for answer in candidates.all], float)
    return {REVERSE: _score_by_model(recovery, questions, candidates, drawn), WORDS: overlap, LENGTH: lengths[drawn]}


def _score_by_model(recovery: Recovery, questions: Sequence[HeldOutPair], candidates: Candidates[str], drawn: NDArray[np.int64]) -> Values:
    """Log P of the instruction given each of its drawn answers. It has the same tokens for all, so their number changes no rank."""
    prompt_format = recovery.prompt_format
    # The ids of an instruction include its end token, which the overhead counts too.
    longest = max(len(question.instruction_ids) for question in questions) - len(prompt_format.after_instruction)
    room = recovery.model.block_size - prompt_format.overhead - longest
    prompts = {index: prompt_format.prompt(prompt_format.fit_response(candidates.all[index], room).ids) for index in np.unique(drawn)}

    def score(asked: Sequence[tuple[HeldOutPair, int]]) -> Iterator[float]:
        examples = (Example(np.array([*prompts[index], *pair.instruction_ids]), len(prompts[index])) for pair, index in asked)
        return with_progress(instruction_logprobs(recovery.model.scorer, examples), len(asked), "answers")

    asked = [(question, index) for question, chosen in zip(questions, drawn.tolist(), strict=True) for index in chosen]
    return np.array(recovery.model.ranks.divided(score, asked)).reshape(drawn.shape)
