"""Estimates and their 95 % bootstrap intervals."""

from collections.abc import Callable, Iterator
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
        return f"{self.figure} {self.interval}" if self.interval else self.figure

    @property
    def figure(self) -> str:
        """The value for people."""
        return format(self.value, self.format_spec)

    @property
    def interval(self) -> str:
        """Its interval for people, in brackets; empty if it has none."""
        return "" if self.low is None or self.high is None else f"({self.low:{self.format_spec}}..{self.high:{self.format_spec}})"

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
    return _between(value, np.array([statistic(chosen) for chosen in _resamples(count, seed)]), count, format_spec)


def resampled_sums(table: Values, seed: int) -> Values:
    """The sum of each column over all examples (rows), and below it over each resample of `bootstrap` (1 + resamples, columns)."""
    resamples = [table[chosen].sum(axis=0) for chosen in _resamples(len(table), seed)] if len(table) > 1 else []
    return np.array([table.sum(axis=0), *resamples])


def estimate_of(statistics: Values, count: int, format_spec: str = ".3f") -> Estimate:
    """The estimate of a statistic from its value for all of `count` examples, followed by those for its resamples."""
    value = float(statistics[0])
    return _between(value, statistics[1:], count, format_spec) if count > 1 else Estimate(value, None, None, count, format_spec)


def _resamples(count: int, seed: int) -> Iterator[Indices]:
    generator = np.random.default_rng([seed, count])
    return (generator.integers(count, size=count) for _ in range(RESAMPLES))


def _between(value: float, resampled: Values, count: int, format_spec: str) -> Estimate:
    low, high = np.nanpercentile(resampled, PERCENTILES)
    return Estimate(value, float(low), float(high), count, format_spec)
