"""The ranking section: how often a response finds its true instruction among other instructions."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Estimate, Indices, Values, mean_estimate
from evaluation.held_out import HeldOutPair
from evaluation.ranking_metrics import recall, reciprocal_rank
from evaluation.recovery import GAIN, GIVEN, WORDS, Recovery
from evaluation.report import Curve, Picture, Section, with_progress
from evaluation.text_overlap import BM25Index
from formats.batches import evenly_spaced

RECALL_PLACES = (1, 5)
INSTRUCTIONS_PER_UPDATE = 256  # scored without a response between two updates of the progress bar


class Candidates(NamedTuple):
    """The different instructions of a pool."""

    ids: list[tuple[int, ...]]
    index_of: dict[tuple[int, ...], int]
    true_of: dict[str, set[int]]  # for each response, the indices of all instructions that belong to it

    @property
    def available(self) -> int:
        """How many false candidates every response has."""
        return len(self.ids) - max(map(len, self.true_of.values()), default=0)


def measure_ranking(recovery: Recovery, pool: Sequence[HeldOutPair], sizes: Sequence[int], limit: int) -> tuple[Section, Picture | None]:
    """Rank the true instruction of at most `limit` responses among as many others as `sizes` say, drawn from the pool."""
    section = Section("Ranking: the true instruction among others", [*(f"recall@{k}" for k in RECALL_PLACES), "mean reciprocal rank"])
    # All candidates see the same cut of the response, so its length does not reveal the true one. It keeps half of the context.
    longest = recovery.model.block_size // 2 - recovery.prompt_format.overhead
    candidates = _make_candidates(pool, longest)
    possible = sorted(size for size in set(sizes) if size <= candidates.available)
    for size in sorted(set(sizes) - set(possible)):
        section.notes.append(f"{size:,} others: left out. A response has only {candidates.available:,} other instructions.")
    usable = [pair for pair in recovery.pairs if pair.instruction_ids in candidates.index_of]
    questions = [usable[index] for index in evenly_spaced(len(usable), limit).tolist()]
    if not possible or not questions:
        return section, None

    drawn = _draw_candidates(questions, candidates, possible[-1], recovery.seed)
    scores = _score_candidates(recovery, questions, candidates, drawn)
    curves = _add_rows(section, scores, possible, recovery.seed)
    section.notes += [
        f"{len(questions):,} responses. The other instructions are drawn from {len(candidates.ids):,} different ones and belong to "
        "a different response. Each smaller set is part of the larger. A tie counts as the mean over the possible orders.",
        "BM25 reads the whole response; the model reads what fits beside the longest candidate.",
    ]
    if lost := len(recovery.pairs) - len(usable):
        section.notes.append(f"{lost:,} pairs left out: their instructions are longer than about half of the context ({longest} tokens).")
    title = "how often the true instruction comes first"
    return section, Picture("report_ranking.png", title, "other instructions", "recall@1", curves, y_range=(0, 1.02))


def _make_candidates(pool: Sequence[HeldOutPair], longest: int) -> Candidates:
    ids = list(dict.fromkeys(pair.instruction_ids for pair in pool if len(pair.instruction_ids) <= longest))
    index_of = {candidate: index for index, candidate in enumerate(ids)}
    true_of = defaultdict(set)
    for pair in pool:
        if pair.instruction_ids in index_of:
            true_of[pair.response].add(index_of[pair.instruction_ids])
    return Candidates(ids, index_of, true_of)


def _draw_candidates(questions: Sequence[HeldOutPair], candidates: Candidates, count: int, seed: int) -> NDArray[np.int64]:
    """For each question its true instruction and `count` false ones (questions, 1 + count)."""
    drawn = []
    for number, question in enumerate(questions):
        false = np.setdiff1d(np.arange(len(candidates.ids)), list(candidates.true_of[question.response]))
        chosen = np.random.default_rng([seed, number]).choice(false, count, replace=False)
        drawn.append([candidates.index_of[question.instruction_ids], *chosen])
    return np.array(drawn)


def _score_candidates(
    recovery: Recovery, questions: Sequence[HeldOutPair], candidates: Candidates, drawn: NDArray[np.int64]
) -> dict[str, Values]:
    """The scores of the drawn candidates in each way, all shaped like `drawn`."""
    used = np.unique(drawn)
    prior = _score_without_response(recovery, candidates, used)
    longest = max(len(candidates.ids[index]) for index in used)
    given = _score_after_responses(recovery, questions, candidates, drawn, longest)
    index = BM25Index([recovery.prompt_format.decode(ids) for ids in candidates.ids])
    overlap = np.array([index.scores(question.response)[chosen] for question, chosen in zip(questions, drawn, strict=True)])
    return {GIVEN: given, GAIN: given - prior[drawn], WORDS: overlap}


def _score_without_response(recovery: Recovery, candidates: Candidates, used: Indices) -> Values:
    """Log P of each used candidate without a response, by its index; 0 for the unused ones."""
    prompt = recovery.prompt_format.prompt([])
    prior = np.zeros(len(candidates.ids))
    parts = [used[start : start + INSTRUCTIONS_PER_UPDATE] for start in range(0, len(used), INSTRUCTIONS_PER_UPDATE)]

    def score(parts: Sequence[Indices]) -> Iterator[Values]:
        shown = with_progress(parts, len(parts), "ranking: without a response")
        return (_score_after(recovery, prompt, candidates, part) for part in shown)

    prior[used] = np.concatenate(recovery.model.ranks.divided(score, parts))
    return prior


def _score_after_responses(
    recovery: Recovery, questions: Sequence[HeldOutPair], candidates: Candidates, drawn: NDArray[np.int64], longest: int
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


def _score_after(recovery: Recovery, prompt: list[int], candidates: Candidates, chosen: Indices) -> Values:
    logprobs = recovery.model.scorer.score_after(prompt, [list(candidates.ids[index]) for index in chosen])
    return np.array([values.sum() for values in logprobs])


def _add_rows(section: Section, scores: dict[str, Values], sizes: Sequence[int], seed: int) -> dict[str, Curve]:
    """Add the rows of each size, and return the curves of recall@1 over the sizes."""
    curves: dict[str, Curve] = {**{name: [] for name in scores}, "chance": []}
    for size in sizes:
        for name, values in scores.items():
            true, false = values[:, :1], values[:, 1 : size + 1]
            greater, ties = (false > true).sum(axis=1), (false == true).sum(axis=1)
            recalls = [mean_estimate(recall(greater, ties, places), seed, ".1%") for places in RECALL_PLACES]
            section.rows[f"{size:,} others: {name}"] = (*recalls, mean_estimate(reciprocal_rank(greater, ties), seed))
            curves[name].append((size, recalls[0]))
        chance = [Estimate(min(1.0, places / (size + 1)), format_spec=".1%") for places in RECALL_PLACES]
        section.rows[f"{size:,} others: chance"] = (*chance, Estimate(float(np.mean(1 / np.arange(1, size + 2)))))
        curves["chance"].append((size, chance[0]))
    return curves
