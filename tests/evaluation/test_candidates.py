"""Candidates of ranking sections: rows by hand, and draws that never take a true candidate for a false one."""

import numpy as np
import pytest

from evaluation.bootstrap import Estimate
from evaluation.candidates import COLUMNS, add_rows, draw_candidates, make_candidates
from evaluation.report import Section


def test_rows_are_those_computed_by_hand() -> None:
    section = Section("Ranks", COLUMNS)
    # The true candidate is first; beaten by one, tied with another; tied with both.
    curves = add_rows(section, {"a score": np.array([[3.0, 1, 2], [1, 2, 1], [0, 0, 0]])}, [1, 2], seed=0)

    def values(row: str) -> list[float]:
        return [cell.value for cell in section.rows[row] if isinstance(cell, Estimate)]

    assert values("1 other: a score") == pytest.approx([(1 + 0 + 1 / 2) / 3, 1, (1 + 1 / 2 + 3 / 4) / 3])
    assert values("2 others: a score") == pytest.approx([(1 + 0 + 1 / 3) / 3, 1, (1 + (1 / 2 + 1 / 3) / 2 + 11 / 18) / 3])
    assert values("2 others: chance") == pytest.approx([1 / 3, 1, 11 / 18])
    assert [size for size, _ in curves["a score"]] == [1, 2]
    assert [estimate.value for _, estimate in curves["a score"]] == pytest.approx([1 / 2, 4 / 9])


def test_a_draw_has_the_true_candidate_first_and_no_other_that_belongs_to_the_question() -> None:
    pool = [("q", "a"), ("q", "b"), ("r", "c"), ("s", "d"), ("s", "a"), ("t", "e"), ("t", "e")]
    candidates = make_candidates(pool)
    assert candidates.all == ["a", "b", "c", "d", "e"]
    assert candidates.available == 3
    drawn = draw_candidates(pool, candidates, 3, seed=5)
    assert drawn.shape == (7, 4)
    for (question, true), chosen in zip(pool, drawn, strict=True):
        named = [candidates.all[index] for index in chosen]
        assert named[0] == true
        assert len(set(named)) == 4
        assert not {answer for asked, answer in pool if asked == question} & set(named[1:])
    assert (drawn == draw_candidates(pool, candidates, 3, seed=5)).all()
