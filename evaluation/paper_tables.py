"""The tables of a report for a paper: report.csv with a figure in each line, report.tex with a tabular for each section."""

import csv
import io
import math
from collections.abc import Iterator, Sequence

from evaluation.bootstrap import Estimate
from evaluation.report import Section
from system.escapes import escape_controls

CSV_COLUMNS = ("model", "corpus", "measure", "value", "low", "high")
IN_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # at the beginning of a row it would be an argument of the line break before
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


def as_csv(sections: Sequence[Section]) -> str:
    """A line for each figure of all sections. What has no interval, or is not a number, is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for section in sections:
        for model, measure, estimate in _figures(section):
            numbers = (estimate.value, estimate.low, estimate.high)
            shown = ["" if number is None or not math.isfinite(number) else repr(number) for number in numbers]
            writer.writerow([*map(escape_controls, (model, section.corpus, measure)), *shown])
    return text.getvalue()


def _figures(section: Section) -> Iterator[tuple[str, str, Estimate]]:
    """The model, the measure and the estimate of each figure."""
    kind = section.title.partition(":")[0]
    for row, column, cell in section.cells():
        if isinstance(cell, Estimate):
            model = {"rows": row, "columns": column, "": section.model}[section.models_in]
            what = [name for place, name in (("rows", row), ("columns", column)) if place != section.models_in]
            yield model, ": ".join([kind, *what]), cell


def as_latex(sections: Sequence[Section]) -> str:
    """The sections that have rows, each as a tabular that needs no package."""
    return "\n".join(_tabular(section) for section in sections if section.rows)


def _tabular(section: Section) -> str:
    rows = [["", *section.columns], *([section.label(name), *map(str, cells)] for name, cells in section.rows.items())]
    header, *body = [" & ".join(map(in_latex, cells)) + r" \\" for cells in rows]
    title = " ".join(escape_controls(section.title).split())
    lines = [f"% {title}", rf"\begin{{tabular}}{{l{'r' * len(section.columns)}}}", r"\hline", header, r"\hline", *body, r"\hline"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def in_latex(text: str) -> str:
    """Text as LaTeX prints it: on one line, its special characters escaped."""
    return " ".join(escape_controls(text).split()).translate(IN_LATEX)
