"""The ranking section: how often a response finds its true instruction among other instructions."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Indices, Values
from evaluation.candidates import CHANCE, COLUMNS, Candidates, add_rows, draw_candidates, make_candidates
from evaluation.combined_score import combine
from evaluation.held_out import HeldOutPair
from evaluation.recovery import GAIN, GIVEN, WORDS, Recovery
from evaluation.report import ENOUGH, Picture, Section, with_progress
from evaluation.text_overlap import BM25Index
from formats.batches import evenly_spaced
from system.amounts import amount

TOGETHER = "that difference and BM25, weighted"
INSTRUCTIONS_PER_UPDATE = 256  # scored without a response between two updates of the progress bar

Instruction = tuple[int, ...]  # its ids


def measure_ranking(recovery: Recovery, pool: Sequence[HeldOutPair], sizes: Sequence[int], limit: int) -> tuple[Section, Picture | None]:
    """Rank the true instruction of at most `limit` responses among as many others as `sizes` say, drawn from the pool."""
    section = Section("Ranking: the true instruction among others", COLUMNS, rest_on="response")
    # All candidates see the same cut of the response, so its length does not reveal the true one. It keeps half of the context.
    longest = recovery.model.block_size // 2 - recovery.prompt_format.overhead
    candidates = make_candidates((pair.response, pair.instruction_ids) for pair in pool if len(pair.instruction_ids) <= longest)
    possible = sorted(size for size in set(sizes) if size <= candidates.available)
    for size in sorted(set(sizes) - set(possible)):
        section.notes.append(f"{amount(size, 'other')}: left out. A response has only {amount(candidates.available, 'other instruction')}.")
    usable = [pair for pair in recovery.pairs if pair.instruction_ids in candidates.index_of]
    questions = [usable[index] for index in evenly_spaced(len(usable), limit).tolist()]
    if not possible or not questions:
        return section, None

    drawn = draw_candidates([(pair.response, pair.instruction_ids) for pair in questions], candidates, possible[-1], recovery.seed)
    scores = _score_candidates(recovery, questions, candidates, drawn)
    curves = add_rows(section, scores, possible, recovery.seed)
    section.notes += [
        f"{amount(len(questions), 'response')}. The other instructions are drawn from {len(candidates.all):,} distinct ones and "
        "belong to a different response. Each smaller set is part of the larger. A tie counts as the mean over the possible orders.",
        "BM25 reads the whole response; the model reads what fits beside the longest candidate. Weighted: each half of the responses with "
        "the weights that fit the other half best; its intervals take them as given.",
    ]
    if lost := len(recovery.pairs) - len(usable):
        section.notes.append(
            f"{amount(lost, 'pair')} left out, with an instruction longer than about half of the context ({longest:,} tokens)."
        )
    title, axes = "How often the true instruction comes first among others", ("other instructions", "recall@1")
    return section, Picture("report_ranking.png", title, *axes, curves, y_range=(0, 1.02), baselines=(WORDS, CHANCE))


def _score_candidates(
    recovery: Recovery, questions: Sequence[HeldOutPair], candidates: Candidates[Instruction], drawn: NDArray[np.int64]
) -> dict[str, Values]:
    """The scores of the drawn candidates in each way, all shaped like `drawn`."""
    used = np.unique(drawn)
    prior = _score_without_response(recovery, candidates, used)
    longest = max(len(candidates.all[index]) for index in used)
    given = _score_after_responses(recovery, questions, candidates, drawn, longest)
    index = BM25Index([recovery.prompt_format.decode(ids) for ids in candidates.all])
    overlap = np.array([index.scores(question.response)[chosen] for question, chosen in zip(questions, drawn, strict=True)])
    gain = given - prior[drawn]
    together = {TOGETHER: combine([gain, overlap])} if len(questions) >= ENOUGH else {}
    return {GIVEN: given, GAIN: gain, WORDS: overlap, **together}


def _score_without_response(recovery: Recovery, candidates: Candidates[Instruction], used: Indices) -> Values:
    """Log P of each used candidate without a response, by its index; 0 for the unused ones."""
    prompt = recovery.prompt_format.prompt([])
    prior = np.zeros(len(candidates.all))
    parts = [used[start : start + INSTRUCTIONS_PER_UPDATE] for start in range(0, len(used), INSTRUCTIONS_PER_UPDATE)]

    def score(parts: Sequence[Indices]) -> Iterator[Values]:
        shown = with_progress(parts, len(parts), "ranking: without a response")
        return (_score_after(recovery, prompt, candidates, part) for part in shown)

    prior[used] = np.concatenate(recovery.model.ranks.divided(score, parts))
    return prior


def _score_after_responses(
    recovery: Recovery, questions: Sequence[HeldOutPair], candidates: Candidates[Instruction], drawn: NDArray[np.int64], longest: int
) -> Values:
    """Log P of the drawn candidates given the response of their question (questions, candidates)."""
    prompt_format = recovery.prompt_format
    # A candidate's ids include its end token, which the overhead counts too.
    room = recovery.model.block_size - prompt_format.overhead + len(prompt_format.after_instruction) - longest

    def score(asked: Sequence[tuple[HeldOutPair, Indices]]) -> Iterator[Values]:
        for question, chosen in with_progress(asked, len(asked), "ranking"):
            prompt = prompt_format.prompt(prompt_format.fit_response(question.response, room).ids)
            yield _score_after(recovery, prompt, candidates, chosen)

    return np.array(recovery.model.ranks.divided(score, list(zip(questions, drawn, strict=True))))


def _score_after(recovery: Recovery, prompt: list[int], candidates: Candidates[Instruction], chosen: Indices) -> Values:
    logprobs = recovery.model.scorer.score_after(prompt, [list(candidates.all[index]) for index in chosen])
    return np.array([values.sum() for values in logprobs])
