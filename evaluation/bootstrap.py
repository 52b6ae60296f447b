"""Estimates and their 95 % bootstrap intervals."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)  # of the resamples: the ends of a 95 % interval

Indices = NDArray[np.int64]
Values = NDArray[np.float64]


class Estimate(NamedTuple):
    """A measured number."""

    value: float
    low: float | None = None  # the ends of its interval, where it has one
    high: float | None = None
    examples: int | None = None  # it was measured on
    format_spec: str = ".3f"  # for people

    def __str__(self) -> str:
        text = format(self.value, self.format_spec)
        return text if self.low is None or self.high is None else f"{text} ({self.low:{self.format_spec}}..{self.high:{self.format_spec}})"

    def as_json(self) -> dict[str, float | int | None]:
        """All digits, for programs."""
        return {"value": self.value, "low": self.low, "high": self.high, "examples": self.examples}


def mean_estimate(values: Values, seed: int, format_spec: str = ".3f") -> Estimate:
    """The mean over examples."""
    return bootstrap(lambda chosen: float(values[chosen].mean()), len(values), seed, format_spec)


def ratio_estimate(numerators: Values, denominators: Values, seed: int, format_spec: str = ".3f") -> Estimate:
    """The ratio of two sums over the same examples, such as nats per byte: long examples count for more."""
    return bootstrap(lambda chosen: float(numerators[chosen].sum() / denominators[chosen].sum()), len(numerators), seed, format_spec)


def bootstrap(statistic: Callable[[Indices], float], count: int, seed: int, format_spec: str = ".3f") -> Estimate:
    """A statistic of `count` examples, given their indices, with its interval from resamples of the same size.

    The resamples depend on the count and the seed only, so two models measured on the same examples share their resamples.
    The statistic may be nan where a resample lacks what it needs. A single example has no interval.
    """
    value = statistic(np.arange(count))
    if count < 2:
        return Estimate(value, None, None, count, format_spec)
    generator = np.random.default_rng([seed, count])
    resampled = [statistic(generator.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(resampled, PERCENTILES)
    return Estimate(value, float(low), float(high), count, format_spec)
