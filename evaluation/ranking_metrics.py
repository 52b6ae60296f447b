"""Metrics of rankings and of scores: recall@k, reciprocal rank, area under the ROC curve."""

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Values


def recall(greater: Values, ties: Values, places: int) -> Values:
    """For each question, the probability that the true answer is in the first places when ties are ordered at random.

    `greater` and `ties` count the false answers with a greater and with the same score.
    """
    share: Values = np.clip((places - greater) / (ties + 1), 0, 1)
    return share


def reciprocal_rank(greater: Values, ties: Values) -> Values:
    """For each question, the mean of 1 / (rank of the true answer) over all orders of its ties."""
    means = [np.mean(1 / (above + 1 + np.arange(equal + 1))) for above, equal in zip(greater, ties, strict=True)]
    return np.array(means)


def area_under_curve(scores: Values, is_true: NDArray[np.bool_]) -> float:
    """The share of (true, false) pairs in which the true one scores higher; a tie counts half; nan if one kind is missing."""
    true, false = np.sort(scores[is_true]), np.sort(scores[~is_true])
    if not len(true) or not len(false):
        return float("nan")
    below, up_to = (np.searchsorted(false, true, side=side) for side in ("left", "right"))
    return float((below + up_to).sum() / 2 / len(true) / len(false))
