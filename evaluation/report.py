"""What a report is made of: sections of estimates with their notes, and pictures of curves."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tqdm import tqdm

from evaluation.bootstrap import Estimate
from system.amounts import amount

Curve = list[tuple[float, Estimate]]  # points from left to right

Item = TypeVar("Item")

ENOUGH = 20  # examples for an interval: with fewer, the percentiles of a bootstrap are too near to each other
TOO_FEW = f"With fewer than {ENOUGH} an interval is too narrow."


@dataclass
class Section:
    """One table, with what must be known before reading it, and its notes."""

    title: str
    columns: Sequence[str] = ()
    rows: dict[str, Sequence[Estimate | str]] = field(default_factory=dict)  # by name, with one cell for each column
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # they stand above the table
    remarks: dict[str, str] = field(default_factory=dict)  # beside the names of rows
    corpus: str = ""  # what it was measured on
    model: str = ""  # whose figures these are, where rows do not name a model
    models_in_rows: bool = False
    rest_on: str = "pair"  # what its intervals are taken over, one of them

    def label(self, row: str) -> str:
        """The name of a row as people read it."""
        return f"{row} ({self.remarks[row]})" if row in self.remarks else row

    @property
    def all_warnings(self) -> list[str]:
        """The warnings, and a caution if intervals rest on few examples."""
        counts = {row: min(cell.examples or 0 for cell in cells) for row, cells in self._resampled()}
        few = {row: count for row, count in counts.items() if 0 < count < ENOUGH}
        if not few:
            return self.warnings
        count = min(few.values())
        only = amount(count, self.rest_on)
        if len(few) < len(counts) or len(set(few.values())) > 1:
            whose = ", ".join(f"{row} ({amount(rests_on, self.rest_on)})" for row, rests_on in few.items())
            return [*self.warnings, f"Caution: few {self.rest_on}s for {whose}. {TOO_FEW}"]
        if count == 1:
            return [*self.warnings, f"Caution: only {only}, so there is no interval."]
        return [*self.warnings, f"Caution: these intervals rest on only {only}. {TOO_FEW}"]

    def _resampled(self) -> Iterator[tuple[str, list[Estimate]]]:
        """The rows with estimates that were resampled, or of a single example, which cannot be."""
        for row, cells in self.rows.items():
            estimates = [cell for cell in cells if isinstance(cell, Estimate) and (cell.low is not None or cell.examples == 1)]
            if estimates:
                yield row, estimates

    def cells(self) -> Iterator[tuple[str, str, Estimate | str]]:
        """The row, the column and the content of each cell."""
        for row, cells in self.rows.items():
            for column, cell in zip(self.columns, cells, strict=True):
                yield row, column, cell

    def as_json(self) -> dict[str, Any]:
        """Each cell by its row and column."""
        rows: dict[str, dict[str, Any]] = {name: {} for name in self.rows}
        for row, column, cell in self.cells():
            rows[row][column] = cell.as_json() if isinstance(cell, Estimate) else cell
        return {"title": self.title, "warnings": self.all_warnings, "rows": rows, "remarks": self.remarks, "notes": self.notes}


@dataclass
class Picture:
    """A plot of curves with their intervals."""

    name: str  # of the file
    title: str
    x_label: str
    y_label: str
    curves: Mapping[str, Curve]
    y_range: tuple[float, float] | None = None
    x_scale: Literal["log", "linear"] = "log"
    baselines: Collection[str] = ()  # the curves that need no model
    families: Mapping[str, str] = field(default_factory=dict)  # of curves that belong together, such as seeds
    means: Collection[str] = ()  # the curves that are the mean of their family
    gaps: Mapping[str, Curve] = field(default_factory=dict)  # between curves, as shares, in a panel below

    @property
    def file_names(self) -> list[str]:
        """The picture for screens, and the same for print."""
        return [self.name, self.name.removesuffix(".png") + ".svg"]

    def as_json(self) -> dict[str, Any]:
        """The points of each curve."""
        curves, gaps = (
            {name: [{"x": x, **estimate.as_json()} for x, estimate in curve] for name, curve in panel.items()}
            for panel in (self.curves, self.gaps)
        )
        return {
            **{"name": self.name, "title": self.title, "x_label": self.x_label, "y_label": self.y_label, "curves": curves},
            **({"gaps": gaps} if gaps else {}),
        }


def with_progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """The items, with a progress bar in a terminal."""
    return iter(tqdm(items, total=total, desc=label, leave=False, disable=None, dynamic_ncols=True))
