"""A report of figures: for people in a terminal and in report.md with its pictures, for machines in report.json."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from disk import replacing, write_json
from errors import UserError
from figures import Figure
from screen import harmless

PIPE_WIDTH = 200  # columns where there is no terminal to ask
Curve = list[tuple[float, Figure]]  # points from left to right

Item = TypeVar("Item")


@dataclass
class Section:
    """One thing that is measured."""

    title: str
    columns: Sequence[str] = ()
    rows: dict[str, Sequence[Figure | str]] = field(default_factory=dict)  # what is measured, and a figure for each column
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Every figure by its row and its column."""
        rows = {
            name: {column: cell.as_json() if isinstance(cell, Figure) else cell for column, cell in zip(self.columns, cells, strict=True)}
            for name, cells in self.rows.items()
        }
        return {"title": self.title, "rows": rows, "notes": self.notes}


@dataclass
class Picture:
    """Curves with their intervals."""

    name: str  # of its file
    title: str
    x_label: str
    y_label: str
    curves: Mapping[str, Curve]
    y_range: tuple[float, float] | None = None


@dataclass
class Report:
    """Sections as they are measured, and the facts that they are about; on disk so far as they are there."""

    title: str
    folder: Path
    facts: dict[str, Any]
    sections: list[Section] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def begin(self) -> None:
        """Print what the figures will be about."""
        console = _console()
        for line in self._facts_in_words():
            console.print(Text(harmless(line)))

    def add(self, section: Section, picture: Picture | None = None) -> None:
        """Print a section, and keep it on disk until the report is whole: an earlier one stays until then."""
        self.sections.append(section)
        self.pictures += [picture] if picture else []
        _print(section)
        self._write("report_unfinished")

    def finish(self) -> list[str]:
        """Put the report in the place of an earlier one; the names of its files."""
        with _refusing(self.folder):
            for picture in self.pictures:
                _draw(self.folder, picture)
        self._write("report")
        for stray in {"report_positions.png", "report_positions1.png", "report_ranking.png"} - {picture.name for picture in self.pictures}:
            (self.folder / stray).unlink(missing_ok=True)  # of an earlier report
        for ending in (".md", ".json"):
            (self.folder / f"report_unfinished{ending}").unlink(missing_ok=True)
        return ["report.json", "report.md", *(picture.name for picture in self.pictures)]

    def _write(self, name: str) -> None:
        with _refusing(self.folder):
            with replacing(self.folder / f"{name}.md") as file:
                file.write(harmless(self._as_markdown()).encode("utf-8", "replace"))
            write_json(self.folder / f"{name}.json", _finite({**self.facts, "sections": [each.as_json() for each in self.sections]}))

    def _as_markdown(self) -> str:
        lines = [f"# {self.title}", "", *(f"- {line}" for line in self._facts_in_words())]
        lines += ["", 'What each row says, and which trap it avoids, stands in the README under "The report card".']
        for section in self.sections:
            lines += ["", f"## {section.title}", ""]
            if section.rows:
                lines += [_table_row(["", *section.columns]), "|---" * (len(section.columns) + 1) + "|"]
                lines += [_table_row([name, *map(str, cells)]) for name, cells in section.rows.items()]
            lines += [line for note in section.notes for line in ("", note)]
        lines += [line for picture in self.pictures for line in ("", f"![{picture.title}]({picture.name})")]
        return "\n".join(lines) + "\n"

    def _facts_in_words(self) -> list[str]:
        """Each fact on a line; of settings those that are set."""
        lines = []
        for name, value in self.facts.items():
            if isinstance(value, dict):
                value = ", ".join(f"{key}={inner}" for key, inner in value.items() if inner not in ("", (), None))
            lines.append(f"{name}: {value}")
        return lines


def watched(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items, with a progress bar where somebody watches."""
    return iter(tqdm(items, total=total, desc=what, leave=False, disable=None))


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write the report to {folder}: {error.strerror}. Give another --out-dir") from error


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def _print(section: Section) -> None:
    console = _console()
    console.print()
    console.print(Text(harmless(section.title), style="bold"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="")
    for column in ("", *section.columns):
        table.add_column(Text(column))
    for name, cells in section.rows.items():
        table.add_row(*(Text(harmless(str(cell))) for cell in (name, *cells)))
    if section.rows and table.__rich_measure__(console, console.options).maximum <= console.width:
        console.print(table)
    else:  # where a table would be torn
        for name, cells in section.rows.items():
            console.print(Text(harmless(name)))
            for column, cell in zip(section.columns, cells, strict=True):
                if str(cell):
                    console.print(Text(f"  {column}: {harmless(str(cell))}"))
    for note in section.notes:
        console.print(Text(harmless(note), style="dim"))


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _draw(folder: Path, picture: Picture) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    for name, curve in picture.curves.items():
        x, figures = zip(*curve, strict=True)
        [line] = axes.plot(x, [figure.value for figure in figures], "o-", label=name, linewidth=1.4, markersize=4)
        ends = np.array([(figure.value if end is None else end) for figure in figures for end in (figure.low, figure.high)]).reshape(-1, 2)
        axes.fill_between(x, ends[:, 0], ends[:, 1], color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(picture.x_label)
    axes.set_ylabel(picture.y_label)
    axes.set_title(picture.title, parse_math=False)
    axes.grid(alpha=0.3)
    if picture.y_range:
        axes.set_ylim(*picture.y_range)
    axes.legend()
    with replacing(folder / picture.name) as file:
        canvas.savefig(file, format="png")


def _finite(value: Any) -> Any:
    """The value for JSON, which has no word for a number that is none."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
