"""Owns what a part of the benchmark found: figures over repeats, each beside the bound and the yardstick of the same repeat."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Rounds = Callable[[], Iterator[int]]  # the repeats, numbered; each is shown as progress


@dataclass(frozen=True)
class Spread:
    """The median of values and their range."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of one value for each repeat."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Measurement:
    """One figure. A share is that of one repeat, since what else the machine does slows a figure and its bound alike."""

    name: str
    unit: str
    figures: tuple[float, ...]  # one for each repeat
    bounds: tuple[float, ...] = ()  # what the machine allows, in the same unit and repeat; empty if nothing bounds it
    yardsticks: tuple[float, ...] = ()  # what a plain program reaches

    @property
    def shares(self) -> tuple[float, ...]:
        """Each figure as a share of its bound."""
        return tuple(figure / bound for figure, bound in zip(self.figures, self.bounds, strict=bool(self.bounds)))

    @property
    def times_yardstick(self) -> tuple[float, ...]:
        """Each figure as a multiple of the yardstick."""
        return tuple(figure / other for figure, other in zip(self.figures, self.yardsticks, strict=bool(self.yardsticks)))

    def as_json(self) -> dict[str, Any]:
        """All repeats, with their medians and ranges."""
        series = {
            "figure": self.figures,
            "bound": self.bounds,
            "share": self.shares,
            "yardstick": self.yardsticks,
            "times_yardstick": self.times_yardstick,
        }
        found = {name: {**vars(spread(values)), "repeats": list(values)} for name, values in series.items() if values}
        return {"name": self.name, "unit": self.unit, **found}


@dataclass
class Section:
    """What one part found."""

    part: str
    title: str
    measurements: list[Measurement]
    notes: list[str] = field(default_factory=list)  # first of all, what the bound and the yardstick are
    details: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # more numbers, by row and by column; the unit is in the column's name

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {
            "title": self.title,
            "measurements": [measurement.as_json() for measurement in self.measurements],
            "details": self.details,
            "notes": self.notes,
        }
