"""The filtering section: whether scores tell true pairs from mismatched ones."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Indices, Values, bootstrap
from evaluation.ranking_metrics import area_under_curve
from evaluation.recovery import GAIN, GIVEN, NONE, OTHER, OWN, WORDS, Recovery
from evaluation.report import Section
from evaluation.text_overlap import BM25Index


def measure_filtering(recovery: Recovery, mismatched_share: float) -> Section:
    """Give a share of the pairs another pair's response, and measure how well each score separates them from the rest."""
    section = Section("Filtering: true pairs from mismatched ones", ("area under the ROC curve",))
    usable = _pairs_with_a_mismatch(recovery)
    if len(usable) < 2:
        section.notes.append("Left out: too few pairs with different responses.")
        return section
    is_true = _draw_true(len(usable), mismatched_share, recovery.seed)
    for name, scores in _score_pairs(recovery, usable, is_true).items():
        section.rows[name] = (bootstrap(_area(scores, is_true), len(usable), recovery.seed),)
    section.notes.append(f"Of {len(usable):,} pairs, {(~is_true).sum():,} got another pair's response. Chance is 0.5.")
    return section


def _pairs_with_a_mismatch(recovery: Recovery) -> list[int]:
    """The pairs for which the response of the other pair is false: no pair gives it to the same instruction."""
    instructions_of = defaultdict(set)
    for pair in recovery.pairs:
        instructions_of[pair.response].add(pair.instruction)
    return [
        index
        for index, other in enumerate(recovery.others)
        if recovery.pairs[index].instruction not in instructions_of[recovery.pairs[other].response]
    ]


def _draw_true(count: int, mismatched_share: float, seed: int) -> NDArray[np.bool_]:
    """Which of `count` pairs keep their own response: at least one, and not all."""
    false = min(count - 1, max(1, round(mismatched_share * count)))
    is_true = np.ones(count, bool)
    is_true[np.random.default_rng([seed, count]).permutation(count)[:false]] = False
    return is_true


def _score_pairs(recovery: Recovery, usable: list[int], is_true: NDArray[np.bool_]) -> dict[str, Values]:
    """In each way, the score of each usable pair with the response that it has now."""
    own, other, none = (recovery.logprobs[name][usable] for name in (OWN, OTHER, NONE))
    given = np.where(is_true, own, other)
    lengths = np.array([len(recovery.pairs[index].instruction_ids) for index in usable])
    response_of = [index if true else recovery.others[index] for index, true in zip(usable, is_true, strict=True)]
    instructions = BM25Index([recovery.pairs[index].instruction for index in usable])
    overlap = np.array([instructions.scores(recovery.pairs[index].response)[row] for row, index in enumerate(response_of)])
    return {GIVEN: given, f"{GIVEN} per token": given / lengths, GAIN: given - none, WORDS: overlap}


def _area(scores: Values, is_true: NDArray[np.bool_]) -> Callable[[Indices], float]:
    return lambda chosen: area_under_curve(scores[chosen], is_true[chosen])
