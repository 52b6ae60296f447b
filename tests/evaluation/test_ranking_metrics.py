"""Metrics of rankings, against every order of ties and every pair of scores."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.bootstrap import bootstrap
from evaluation.ranking_metrics import area_under_curve, recall, reciprocal_rank

COUNTS = st.integers(0, 5)
SCORES = st.lists(st.integers(0, 4), min_size=1, max_size=8)


@given(COUNTS, COUNTS, st.integers(1, 6))
def test_ties_count_as_the_mean_over_every_order(greater: int, ties: int, places: int) -> None:
    ranks = [greater + order.index(0) + 1 for order in itertools.permutations(range(ties + 1))]  # 0 is the true answer
    above, equal = np.array([float(greater)]), np.array([float(ties)])
    assert recall(above, equal, places)[0] == pytest.approx(np.mean([rank <= places for rank in ranks]))
    assert reciprocal_rank(above, equal)[0] == pytest.approx(np.mean([1 / rank for rank in ranks]))


@given(SCORES, SCORES)
def test_the_area_is_the_share_of_pairs_in_the_right_order(true: list[int], false: list[int]) -> None:
    expected = np.mean([1.0 if one > other else 0.5 if one == other else 0.0 for one in true for other in false])
    scores = np.array([*true, *false], float)
    is_true = np.arange(len(scores)) < len(true)
    assert area_under_curve(scores, is_true) == pytest.approx(expected)
    assert area_under_curve(-scores, is_true) == pytest.approx(1 - expected)


def test_the_area_needs_both_kinds_and_its_interval_skips_resamples_of_one_kind() -> None:
    assert math.isnan(area_under_curve(np.array([1.0, 2.0]), np.array([True, True])))
    scores, is_true = np.array([1.0, 2.0, 3.0]), np.array([False, True, True])
    estimate = bootstrap(lambda chosen: area_under_curve(scores[chosen], is_true[chosen]), 3, 0)
    assert estimate[:3] == (1.0, 1.0, 1.0)
