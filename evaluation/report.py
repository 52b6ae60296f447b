"""The report: sections of estimates, printed in the terminal and written to report.md with pictures and to report.json."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from evaluation.bootstrap import Estimate
from system.errors import UserError
from system.escapes import escape_controls
from system.files import atomic_write, write_json

PICTURES = {f"report_{name}.png" for name in ("positions", "positions1", "ranking", "training_bits", "training_shares")}
PIPE_WIDTH = 200  # columns when the output is not a terminal
Curve = list[tuple[float, Estimate]]  # points from left to right

Item = TypeVar("Item")


@dataclass
class Section:
    """One table and its notes."""

    title: str
    columns: Sequence[str] = ()
    rows: dict[str, Sequence[Estimate | str]] = field(default_factory=dict)  # by name, with one cell for each column
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Each cell by its row and column."""
        rows = {
            name: {column: cell.as_json() if isinstance(cell, Estimate) else cell for column, cell in zip(self.columns, cells, strict=True)}
            for name, cells in self.rows.items()
        }
        return {"title": self.title, "rows": rows, "notes": self.notes}


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


@dataclass
class Report:
    """The sections so far and the facts of the run, such as models and settings; each new section is printed and written at once."""

    title: str
    folder: Path
    facts: dict[str, Any]
    sections: list[Section] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    is_kept: bool = True  # False: in a process whose results another one writes

    def print_facts(self) -> None:
        """Print the facts of the run."""
        console = _console()
        for line in self._fact_lines():
            console.print(Text(escape_controls(line)))

    def add(self, section: Section, *pictures: Picture | None) -> None:
        """Print a section and write it to the unfinished report; an earlier report stays until this one is complete."""
        self.sections.append(section)
        self.pictures += filter(None, pictures)
        if self.is_kept:
            _print(section)
            self._write("report_unfinished")

    def finish(self) -> list[str]:
        """Replace the earlier report, and return the names of the files written."""
        if not self.is_kept:
            return []
        with _as_user_errors(self.folder):
            for picture in self.pictures:
                _draw(self.folder, picture)
        self._write("report")
        for name in PICTURES - {picture.name for picture in self.pictures}:
            (self.folder / name).unlink(missing_ok=True)  # of an earlier report
        for ending in (".md", ".json"):
            (self.folder / f"report_unfinished{ending}").unlink(missing_ok=True)
        return ["report.json", "report.md", *(picture.name for picture in self.pictures)]

    def _write(self, name: str) -> None:
        with _as_user_errors(self.folder):
            with atomic_write(self.folder / f"{name}.md") as file:
                file.write(escape_controls(self._as_markdown()).encode("utf-8", "replace"))
            write_json(self.folder / f"{name}.json", {**self.facts, "sections": [each.as_json() for each in self.sections]})

    def _as_markdown(self) -> str:
        lines = [f"# {self.title}", "", *(f"- {line}" for line in self._fact_lines())]
        lines += ["", "What each row means, and which pitfall it avoids, is explained in docs/evaluation.md."]
        for section in self.sections:
            lines += ["", f"## {section.title}", ""]
            if section.rows:
                lines += [_table_row(["", *section.columns]), "|---" * (len(section.columns) + 1) + "|"]
                lines += [_table_row([name, *map(str, cells)]) for name, cells in section.rows.items()]
            lines += [line for note in section.notes for line in ("", note)]
        lines += [line for picture in self.pictures for line in ("", f"![{picture.title}]({picture.name})")]
        return "\n".join(lines) + "\n"

    def _fact_lines(self) -> list[str]:
        """One line for each fact; settings that are empty are left out."""
        lines = []
        for name, value in self.facts.items():
            if isinstance(value, dict):
                value = ", ".join(f"{key}={inner}" for key, inner in value.items() if inner not in ("", (), None))
            lines.append(f"{name}: {value}")
        return lines


def with_progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """The items, with a progress bar in a terminal."""
    return iter(tqdm(items, total=total, desc=label, leave=False, disable=None, dynamic_ncols=True))


@contextmanager
def _as_user_errors(folder: Path) -> Iterator[None]:
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
    console.print(Text(escape_controls(section.title), style="bold"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="")
    for column in ("", *section.columns):
        table.add_column(Text(column))
    for name, cells in section.rows.items():
        table.add_row(*(Text(escape_controls(str(cell))) for cell in (name, *cells)))
    if section.rows and table.__rich_measure__(console, console.options).maximum <= console.width:
        console.print(table)
    else:  # the table is wider than the terminal
        for name, cells in section.rows.items():
            console.print(Text(escape_controls(name)))
            for column, cell in zip(section.columns, cells, strict=True):
                if str(cell):
                    console.print(Text(f"  {column}: {escape_controls(str(cell))}"))
    for note in section.notes:
        console.print(Text(escape_controls(note), style="dim"))


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _draw(folder: Path, picture: Picture) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    for name, curve in picture.curves.items():
        x, estimates = zip(*curve, strict=True)
        [line] = axes.plot(x, [estimate.value for estimate in estimates], "o-", label=name, linewidth=1.4, markersize=4)
        low = [estimate.value if estimate.low is None else estimate.low for estimate in estimates]
        high = [estimate.value if estimate.high is None else estimate.high for estimate in estimates]
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale(picture.x_scale)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(picture.x_label)
    axes.set_ylabel(picture.y_label)
    axes.set_title(picture.title, parse_math=False)
    axes.grid(alpha=0.3)
    if picture.y_range:
        axes.set_ylim(*picture.y_range)
    axes.legend()
    with atomic_write(folder / picture.name) as file:
        canvas.savefig(file, format="png")
