"""A section in a terminal: always as a table, however narrow the terminal is."""

import textwrap
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.bootstrap import Estimate
from evaluation.report import Section
from system.escapes import escape_controls

NAME_WIDTH = 20  # columns that the names of rows keep at least


def print_section(console: Console, section: Section) -> None:
    """Print the title, the warnings, the table and the notes."""
    console.print()
    console.print(Text(escape_controls(section.title), style="bold"))
    for warning in section.all_warnings:
        console.print(Text(escape_controls(warning), style="yellow"))
    if section.rows:
        for table in _tables(console, section):
            console.print(table)
    for note in section.notes:
        console.print(Text(escape_controls(note), style="dim"))


def _tables(console: Console, section: Section) -> Iterator[Table]:
    """One table with a line for each row; in a narrow terminal intervals stand under their values, and columns that lack room follow."""
    table = _table(section, range(len(section.columns)), stacked=False)
    if _fits(console, table):
        yield table
        return
    shown: list[int] = []
    for column in range(len(section.columns)):
        if shown and not _fits(console, _table(section, [*shown, column], stacked=True)):
            yield _table(section, shown, stacked=True)
            shown = []
        shown.append(column)
    yield _table(section, shown, stacked=True)


def _fits(console: Console, table: Table) -> bool:
    measured = table.__rich_measure__(console, console.options.update(max_width=10**6))
    return (measured.minimum if table.columns[0].min_width else measured.maximum) <= console.width


def _table(section: Section, shown: Sequence[int], stacked: bool) -> Table:
    """A table of some columns. Stacked, only the names of rows may be wrapped by rich, which would break figures too."""
    names = [escape_controls(section.label(name)) for name in section.rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("", min_width=min(NAME_WIDTH, max(map(len, names))) if stacked else None)
    texts = {column: [_cell(cells[column], stacked) for cells in section.rows.values()] for column in shown}
    for column, cells in texts.items():
        header = section.columns[column]
        if stacked:
            width = max(len(line) for text in (*cells, *header.split()) for line in (text.split("\n") or [""]))
            header = "\n".join(textwrap.wrap(header, max(width, 1)))
        table.add_column(Text(escape_controls(header)), no_wrap=stacked)
    for row, name in enumerate(names):
        table.add_row(Text(name), *(Text(cells[row]) for cells in texts.values()))
    return table


def _cell(cell: Estimate | str, stacked: bool) -> str:
    if stacked and isinstance(cell, Estimate):
        return "\n".join(filter(None, (cell.figure, cell.interval)))
    return escape_controls(str(cell))
