"""Estimates and intervals, against values computed by hand and against theory."""

import math

import numpy as np
import pytest

from evaluation.bootstrap import Estimate, bootstrap, mean_estimate, ratio_estimate


def test_an_estimate_prints_its_interval() -> None:
    assert str(Estimate(0.12345, format_spec=".1%")) == "12.3%"
    assert str(Estimate(1.5, -0.25, 3.125, 10)) == "1.500 (-0.250..3.125)"
    assert Estimate(1.5, 1.0, 2.0, 10).as_json() == {"value": 1.5, "low": 1.0, "high": 2.0, "examples": 10}


def test_means_and_ratios_by_hand() -> None:
    assert mean_estimate(np.array([1.0, 2.0, 6.0]), 0).value == 3.0
    assert ratio_estimate(np.array([1.0, 3.0]), np.array([2.0, 6.0]), 0).value == 0.5
    assert ratio_estimate(np.array([1.0, 9.0]), np.array([1.0, 4.0]), 0).value == 2.0  # the mean of the ratios is 1.625


def test_an_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    estimate = mean_estimate(values, 0)
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low == pytest.approx(estimate.value - half, abs=0.15 * half)
    assert estimate.high == pytest.approx(estimate.value + half, abs=0.15 * half)
    assert mean_estimate(values, 0) == estimate
    assert mean_estimate(values, 1) != estimate


def test_equal_examples_give_an_empty_interval_and_one_example_gives_none() -> None:
    assert mean_estimate(np.full(9, 2.5), 0) == Estimate(2.5, 2.5, 2.5, 9)
    assert mean_estimate(np.array([2.5]), 0) == Estimate(2.5, None, None, 1)


def test_two_models_on_the_same_examples_share_their_resamples() -> None:
    nats = np.random.default_rng(0).normal(5, 2, 50)
    estimate = bootstrap(lambda chosen: float((1.02 * nats)[chosen].sum() / nats[chosen].sum() - 1), 50, 0)
    assert [estimate.low, estimate.high] == pytest.approx([0.02, 0.02])


def test_resamples_without_a_value_are_left_out_of_the_interval() -> None:
    estimate = bootstrap(lambda chosen: 1.0 if 0 in chosen else float("nan"), 3, 0)
    assert estimate[:3] == (1.0, 1.0, 1.0)
