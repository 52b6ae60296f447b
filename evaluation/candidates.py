"""Questions with a true candidate among false ones: which are drawn, and the rows that tell how often the true one is first."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Estimate, Values, mean_estimate
from evaluation.ranking_metrics import recall, reciprocal_rank
from evaluation.report import Curve, Section
from system.amounts import amount

RECALL_PLACES = (1, 5)
CHANCE = "chance"  # a row and a curve
COLUMNS = (*(f"recall@{places}" for places in RECALL_PLACES), "mean reciprocal rank")

Candidate = TypeVar("Candidate", bound=Hashable)


class Candidates(NamedTuple, Generic[Candidate]):
    """The different candidates of a pool."""

    all: list[Candidate]
    index_of: dict[Candidate, int]
    true_of: dict[str, set[int]]  # for each question, the indices of all candidates that belong to it

    @property
    def available(self) -> int:
        """How many false candidates every question has."""
        return len(self.all) - max(map(len, self.true_of.values()), default=0)


def make_candidates(pool: Iterable[tuple[str, Candidate]]) -> Candidates[Candidate]:
    """The candidates of a pool of questions, each with one that belongs to it."""
    index_of: dict[Candidate, int] = {}
    true_of: dict[str, set[int]] = defaultdict(set)
    for question, candidate in pool:
        true_of[question].add(index_of.setdefault(candidate, len(index_of)))
    return Candidates(list(index_of), index_of, true_of)


def draw_candidates(
    questions: Sequence[tuple[str, Candidate]], candidates: Candidates[Candidate], count: int, seed: int
) -> NDArray[np.int64]:
    """For each question the index of its true candidate, and of `count` false ones (questions, 1 + count)."""
    drawn = []
    for number, (question, true) in enumerate(questions):
        false = np.setdiff1d(np.arange(len(candidates.all)), list(candidates.true_of[question]))
        chosen = np.random.default_rng([seed, number]).choice(false, count, replace=False)
        drawn.append([candidates.index_of[true], *chosen])
    return np.array(drawn)


def add_rows(section: Section, scores: dict[str, Values], sizes: Sequence[int], seed: int) -> dict[str, Curve]:
    """Add the rows of each size, and return the curves of recall@1 over the sizes."""
    curves: dict[str, Curve] = {**{name: [] for name in scores}, CHANCE: []}
    for size in sizes:
        for name, values in scores.items():
            true, false = values[:, :1], values[:, 1 : size + 1]
            greater, ties = (false > true).sum(axis=1), (false == true).sum(axis=1)
            recalls = [mean_estimate(recall(greater, ties, places), seed, ".1%") for places in RECALL_PLACES]
            section.rows[f"{amount(size, 'other')}: {name}"] = (*recalls, mean_estimate(reciprocal_rank(greater, ties), seed))
            curves[name].append((size, recalls[0]))
        chance = [Estimate(min(1.0, places / (size + 1)), format_spec=".1%") for places in RECALL_PLACES]
        section.rows[f"{amount(size, 'other')}: {CHANCE}"] = (*chance, Estimate(float(np.mean(1 / np.arange(1, size + 2)))))
        curves[CHANCE].append((size, chance[0]))
    return curves
