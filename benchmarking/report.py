"""Owns how the benchmark shows what it found: tables that are Markdown too, and one file of JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarking.measurement import Measurement, Section, Spread, spread
from system.files import write_json

COLUMNS = ("", "measured", "bound", "of the bound", "yardstick", "times the yardstick")


def as_table(section: Section) -> str:
    """The section as text: its title, a table with the range of the repeats in brackets, the notes."""
    width = 1 + max(
        (index for each in section.measurements for index, cell in enumerate(_cells(each)) if cell), default=0
    )  # the machine itself has no bound
    rows = [COLUMNS[:width], *(_cells(each)[:width] for each in section.measurements)]
    parts = [f"### {section.title}", _layout(rows)]
    if section.details:
        columns = list(dict.fromkeys(column for row in section.details.values() for column in row))
        details = [[name, *(short(row[column]) if column in row else "" for column in columns)] for name, row in section.details.items()]
        parts.append(_layout([["", *columns], *details]))
    parts += section.notes
    return "\n\n".join(parts) + "\n"


def write_figures(path: Path, facts: dict[str, Any], sections: Sequence[Section]) -> None:
    """Write all repeats of all figures as JSON."""
    write_json(path, {**facts, "parts": {section.part: section.as_json() for section in sections}})


def short(value: float) -> str:
    """Three significant digits, all digits of a large number."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.2g}"


def _cells(found: Measurement) -> list[str]:
    """The row of a measurement; cells of what it lacks are empty."""
    share = spread(found.shares) if found.bounds else None
    times = spread(found.times_yardstick) if found.yardsticks else None
    return [
        found.name,
        f"{short(spread(found.figures).median)} {found.unit}{_range(spread(found.figures))}",
        short(spread(found.bounds).median) if found.bounds else "",
        f"{share.median:.0%}{_range(share, '.0%')}" if share else "",
        short(spread(found.yardsticks).median) if found.yardsticks else "",
        f"{short(times.median)}{_range(times)}" if times else "",
    ]


def _range(values: Spread, form: str = "") -> str:
    if values.low == values.high:
        return ""
    low, high = (format(value, form) if form else short(value) for value in (values.low, values.high))
    return f" ({low}..{high})"


def _layout(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns are aligned, so that it reads well in a terminal too."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) if column == 0 else "-" * (width + 1) + ":" for column, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
