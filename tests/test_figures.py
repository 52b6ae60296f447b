"""Figures and intervals against values found by hand, by trying every case, or by another road."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures import Figure, area_under_curve, mean, ratio, recall, reciprocal_rank, resampled

COUNTS = st.integers(0, 5)


def test_a_figure_reads_well() -> None:
    assert str(Figure(0.12345, form=".1%")) == "12.3%"
    assert str(Figure(1.5, -0.25, 3.125, 10)) == "1.500 (-0.250..3.125)"
    assert Figure(1.5, 1.0, 2.0, 10).as_json() == {"value": 1.5, "low": 1.0, "high": 2.0, "examples": 10}


def test_means_and_quotients_by_hand() -> None:
    assert mean(np.array([1.0, 2.0, 6.0]), 0).value == 3.0
    assert ratio(np.array([1.0, 3.0]), np.array([2.0, 6.0]), 0).value == 0.5
    assert ratio(np.array([1.0, 9.0]), np.array([1.0, 4.0]), 0).value == 2.0  # not the mean of the quotients, which is 1.625


def test_an_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    figure = mean(values, 0)
    half = 1.96 * values.std() / math.sqrt(400)
    assert figure.low is not None and figure.high is not None
    assert figure.low == pytest.approx(figure.value - half, abs=0.15 * half)
    assert figure.high == pytest.approx(figure.value + half, abs=0.15 * half)
    assert mean(values, 0) == figure
    assert mean(values, 1) != figure


def test_examples_that_are_alike_leave_no_doubt_and_one_alone_tells_nothing_of_it() -> None:
    assert mean(np.full(9, 2.5), 0) == Figure(2.5, 2.5, 2.5, 9)
    assert mean(np.array([2.5]), 0) == Figure(2.5, None, None, 1)


def test_two_models_on_the_same_examples_get_the_same_resamples() -> None:
    nats = np.random.default_rng(0).normal(5, 2, 50)
    figure = resampled(lambda chosen: float((1.02 * nats)[chosen].sum() / nats[chosen].sum() - 1), 50, 0)
    assert [figure.low, figure.high] == pytest.approx([0.02, 0.02])


@given(COUNTS, COUNTS, st.integers(1, 6))
def test_ties_count_as_the_mean_over_every_order(greater: int, ties: int, places: int) -> None:
    found = []
    for order in itertools.permutations(range(ties + 1)):
        found.append(greater + order.index(0) + 1)  # where the truth stands among its equals
    above, equal = np.array([float(greater)]), np.array([float(ties)])
    assert recall(above, equal, places)[0] == pytest.approx(np.mean([place <= places for place in found]))
    assert reciprocal_rank(above, equal)[0] == pytest.approx(np.mean([1 / place for place in found]))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_the_area_is_the_share_of_pairs_in_their_order(true: list[int], false: list[int]) -> None:
    expected = np.mean([1.0 if one > other else 0.5 if one == other else 0.0 for one in true for other in false])
    scores = np.array([*true, *false], float)
    is_true = np.arange(len(scores)) < len(true)
    assert area_under_curve(scores, is_true) == pytest.approx(expected)
    assert area_under_curve(-scores, is_true) == pytest.approx(1 - expected)


def test_the_area_needs_both_kinds_and_its_interval_does_without_resamples_of_one() -> None:
    assert math.isnan(area_under_curve(np.array([1.0, 2.0]), np.array([True, True])))
    scores, is_true = np.array([1.0, 2.0, 3.0]), np.array([False, True, True])
    figure = resampled(lambda chosen: area_under_curve(scores[chosen], is_true[chosen]), 3, 0)
    assert figure[:3] == (1.0, 1.0, 1.0)
