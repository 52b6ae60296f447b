"""Figures with their uncertainty: what a measurement says, and the 95 % bootstrap interval of it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LIMITS = (2.5, 97.5)  # per cent of the resamples that lie below and above: 95 % are between

Values = NDArray[np.float64]


class Figure(NamedTuple):
    """A measured number."""

    value: float
    low: float | None = None  # the interval's ends, where it has one
    high: float | None = None
    examples: int | None = None  # behind it
    form: str = ".3f"  # how it is written for people

    def __str__(self) -> str:
        text = format(self.value, self.form)
        return text if self.low is None or self.high is None else f"{text} ({self.low:{self.form}}..{self.high:{self.form}})"

    def as_json(self) -> dict[str, float | int | None]:
        """For machines, with every digit."""
        return {"value": self.value, "low": self.low, "high": self.high, "examples": self.examples}


def mean(values: Values, seed: int, form: str = ".3f") -> Figure:
    """The mean over examples."""
    return resampled(lambda chosen: float(values[chosen].mean()), len(values), seed, form)


def ratio(above: Values, below: Values, seed: int, form: str = ".3f") -> Figure:
    """The quotient of two sums over the same examples, such as nats by bytes: long examples count for more."""
    return resampled(lambda chosen: float(above[chosen].sum() / below[chosen].sum()), len(above), seed, form)


def resampled(statistic: Callable[[NDArray[np.int64]], float], count: int, seed: int, form: str = ".3f") -> Figure:
    """A statistic of examples named by number, and how it spreads when as many are drawn anew with repetition.

    What is drawn depends on the count and the seed only, so two models measured on the same examples are compared on the
    same resamples. A statistic may be nan where a resample lacks what it needs; one example alone has no interval.
    """
    value = statistic(np.arange(count))
    if count < 2:
        return Figure(value, None, None, count, form)
    generator = np.random.default_rng([seed, count])
    found = [statistic(generator.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(found, LIMITS)
    return Figure(value, float(low), float(high), count, form)


def recall(greater: Values, ties: Values, places: int) -> Values:
    """For each question, the chance that the truth is in the first places, if those that tie with it stand in a random order."""
    share: Values = np.clip((places - greater) / (ties + 1), 0, 1)
    return share


def reciprocal_rank(greater: Values, ties: Values) -> Values:
    """For each question, the mean of 1 / (place of the truth) over the orders in which those that tie with it can stand."""
    found = [np.mean(1 / (above + 1 + np.arange(equal + 1))) for above, equal in zip(greater, ties, strict=True)]
    return np.array(found)


def area_under_curve(scores: Values, is_true: NDArray[np.bool_]) -> float:
    """The share of (true, false) pairs in which the true one has the higher score, a tie being half; nan where one kind is missing."""
    true, false = np.sort(scores[is_true]), np.sort(scores[~is_true])
    if not len(true) or not len(false):
        return float("nan")
    below, up_to = (np.searchsorted(false, true, side=side) for side in ("left", "right"))
    return float((below + up_to).sum() / 2 / len(true) / len(false))
