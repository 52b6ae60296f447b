"""Sections in a terminal of any width: tables whose figures stay whole."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from evaluation.answers import measure_answers
from evaluation.bootstrap import Estimate
from evaluation.evaluated_model import EvaluatedModel, with_names
from evaluation.filtering import measure_filtering
from evaluation.generated_instructions import measure_generated_instructions
from evaluation.language import measure_language
from evaluation.ranking import measure_ranking
from evaluation.recovery import measure_instructions
from evaluation.report import Section
from evaluation.terminal_table import print_section
from formats.pairs import Pair
from tests.conftest import make_pairs
from tests.evaluation.conftest import make_recovery


def print_at(width: int, section: Section) -> str:
    """What a terminal of this width shows."""
    file = io.StringIO()
    print_section(Console(file=file, width=width, highlight=False), section)
    return file.getvalue()


def tables_in(printed: str) -> list[list[str]]:
    """The lines of each table below its header."""
    parts = re.split(r"^ ?─+ ?$", printed, flags=re.MULTILINE)
    return [part.split("\n \n")[0].splitlines() for part in parts[1:]]


@pytest.fixture(scope="module")
def sections(bigram_model: EvaluatedModel) -> list[Section]:
    """Real ones, of each kind that has a table of its own shape."""
    models = with_names([bigram_model._replace(is_other=number > 1) for number in range(4)])
    language, _ = measure_language(models, ["the cat sleeps.", "a dog runs under the tree.", "old and small"], "texts", "x.png", 0, 0)
    recovery = make_recovery(bigram_model, [Pair(pair["instruction"], pair["output"]) for pair in make_pairs(30)])
    ranking, _ = measure_ranking(recovery, recovery.pairs, (5, 10), 20)
    found = [language, measure_instructions(recovery), ranking, measure_answers(recovery, recovery.pairs, (5,), 20)]
    found += [measure_filtering(recovery, 0.5), measure_generated_instructions(recovery, [], 4, 4)]
    language.remarks[models[0].name] = "judge its text by its pretrained checkpoint"
    assert all(section.rows for section in found)
    return found


def test_at_80_columns_the_card_stays_a_table(sections: list[Section]) -> None:
    for section in sections:
        printed = print_at(80, section)
        assert max(map(len, printed.splitlines())) <= 80
        assert f": {next(iter(section.rows.values()))[0]}" not in printed  # as a list would show it
        words = printed.split()
        for _, _, cell in section.cells():
            assert set(str(cell).split()) <= set(words), (section.title, cell)  # a figure and its interval are not broken


def test_a_wide_terminal_has_a_line_for_each_row(sections: list[Section]) -> None:
    for section in sections:
        [lines] = tables_in(print_at(200, section))
        for line, (name, cells) in zip(lines[1:], section.rows.items(), strict=False):
            assert re.split(r" {2,}", line.strip()) == [section.label(name), *(str(cell) for cell in cells if str(cell))]


@given(
    width=st.integers(60, 130),
    columns=st.lists(st.text("ab ", min_size=1, max_size=30), min_size=1, max_size=8, unique=True),
    rows=st.lists(st.text("ab ", max_size=60), min_size=1, max_size=4, unique=True),
    scale=st.sampled_from([1, 10**8]),
)
def test_whatever_the_width_no_figure_is_broken_or_lost(width: int, columns: list[str], rows: list[str], scale: int) -> None:
    cells = [[Estimate(scale * (100 * row + column), row, scale * column) for column in range(len(columns))] for row in range(len(rows))]
    printed = print_at(width, Section("T", columns, dict(zip(rows, cells, strict=True))))
    assert max(map(len, printed.splitlines())) <= width
    found = [word for word in printed.split() if re.fullmatch(r"[\d.]+", word)]
    assert sorted(found) == sorted(f"{estimate.value:.3f}" for of_row in cells for estimate in of_row)
