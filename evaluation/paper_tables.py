"""The tables of a report for a paper: report.csv with a figure in each line, report.tex with a table for each section."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluation.bootstrap import Estimate
from evaluation.report import Section
from system.escapes import escape_controls

CSV_COLUMNS = ("model", "corpus", "measure", "value", "low", "high")
HEAD = r"% Tables for \input, in a document with \usepackage{booktabs}." + "\n"
NUMBER = re.compile(r"\(?[+-]?([\d.]+|inf|nan)%?(\.\.[+-]?([\d.]+|inf)%?\))?")
INTERVALS = "Brackets hold 95 % bootstrap intervals."
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


def models_as_csv(models: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each model. What is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", *next(iter(models.values()), {})])
    for model, facts in models.items():
        writer.writerow([escape_controls(fact) if isinstance(fact, str) else fact for fact in (model, *facts.values())])
    return text.getvalue()


def _figures(section: Section) -> Iterator[tuple[str, str, Estimate]]:
    """The model, the measure and the estimate of each figure."""
    kind = section.title.partition(":")[0]
    for row, column, cell in section.cells():
        if isinstance(cell, Estimate):
            what = [column] if section.models_in_rows else [row, column]
            yield row if section.models_in_rows else section.model, ": ".join([kind, *what]), cell


def as_latex(sections: Sequence[Section]) -> str:
    """The sections that have rows, each as a table with a caption and a label of its own, for `input`."""
    tables: dict[str, str] = {}  # by label
    for section in sections:
        label = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "table"
        if section.rows:
            label = label if label not in tables else f"{label}-{len(tables) + 1}"
            tables[label] = _table(section, label)
    return "\n".join([HEAD, *tables.values()])


def _table(section: Section, label: str) -> str:
    has_intervals = any(isinstance(cell, Estimate) and cell.interval for _, _, cell in section.cells())
    caption = in_latex(" ".join([f"{section.title}.", *([INTERVALS] if has_intervals else []), *section.all_warnings]))
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{tab:{label}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(section.columns)}}}", r"\toprule", _row(["", *section.columns]), r"\midrule"]
    for name, cells in section.rows.items():
        estimates = [cell if isinstance(cell, Estimate) else None for cell in cells]
        lines.append(_row([section.label(name), *(cell.figure if isinstance(cell, Estimate) else cell for cell in cells)]))
        if any(estimate and estimate.interval for estimate in estimates):  # below the figures, since beside them few columns fit a page
            lines.append(_row(["", *(estimate.interval if estimate else "" for estimate in estimates)]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_in_cell, cells)) + r" \\"


def _in_cell(text: str) -> str:
    """A cell as LaTeX prints it: the figures and intervals with minus signs instead of hyphens, the intervals small."""
    number = NUMBER.fullmatch(text)
    shown = in_latex(text)
    shown = shown.replace("-", "$-$") if number else shown
    return rf"{{\footnotesize {shown}}}" if number and text.startswith("(") else shown


def in_latex(text: str) -> str:
    """Text as LaTeX prints it: on one line, its special characters escaped."""
    return " ".join(escape_controls(text).split()).translate(IN_LATEX)
