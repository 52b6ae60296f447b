"""What a report is made of: sections of estimates with their notes, and pictures of curves."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tqdm import tqdm

from evaluation.bootstrap import Estimate

Curve = list[tuple[float, Estimate]]  # points from left to right

Item = TypeVar("Item")


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
    model: str = ""  # whose figures these are, where neither rows nor columns name a model
    models_in: Literal["rows", "columns", ""] = ""

    def label(self, row: str) -> str:
        """The name of a row as people read it."""
        return f"{row} ({self.remarks[row]})" if row in self.remarks else row

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
        return {"title": self.title, "warnings": self.warnings, "rows": rows, "remarks": self.remarks, "notes": self.notes}


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

    @property
    def file_names(self) -> list[str]:
        """The picture for screens, and the same for print."""
        return [self.name, self.name.removesuffix(".png") + ".svg"]

    def as_json(self) -> dict[str, Any]:
        """The points of each curve."""
        curves = {name: [{"x": x, **estimate.as_json()} for x, estimate in curve] for name, curve in self.curves.items()}
        return {"name": self.name, "title": self.title, "x_label": self.x_label, "y_label": self.y_label, "curves": curves}


def with_progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """The items, with a progress bar in a terminal."""
    return iter(tqdm(items, total=total, desc=label, leave=False, disable=None, dynamic_ncols=True))
