"""Curves by position: in the same ranges and texts for all models, and the gap between twins by hand."""

import numpy as np
import pytest

from evaluation.bootstrap import Values, bootstrap
from evaluation.evaluated_model import EvaluatedModel
from evaluation.positions import curves_by_position


def twins_of(model: EvaluatedModel, seeds: int) -> list[EvaluatedModel]:
    both = [(kind, number) for kind in ("backward", "forward") for number in range(seeds)]
    return [model._replace(name=f"{kind}{number}", kind=kind * (seeds > 1), is_other=kind == "forward") for kind, number in both]


def losses(lengths: list[int], first: float, later: float) -> list[Values]:
    return [np.array([first, *[later] * (length - 1)]) for length in lengths]


def test_twins_share_the_ranges_though_one_reads_more_tokens(bigram_model: EvaluatedModel) -> None:
    lengths = [40, 50, 60]
    backward, forward = losses([length + 30 for length in lengths], 1.0, 3.0), losses(lengths, 2.0, 2.0)
    curves, gaps = curves_by_position(twins_of(bigram_model, 1), [backward, forward], [(0, 1)], 0)
    assert [x for x, _ in curves["backward0"]] == [x for x, _ in curves["forward0"]] == [x for x, _ in gaps["gap"]]
    assert all(one.examples == other.examples for (_, one), (_, other) in zip(*curves.values(), strict=True))
    values = [estimate.value for _, estimate in gaps["gap"]]
    assert values == pytest.approx([-0.5, *[0.5] * (len(values) - 1)])


def test_a_gap_is_paired_by_text(bigram_model: EvaluatedModel) -> None:
    """Texts differ by a factor of ten, and the gap is the same in each: so its interval has no width, and those of the losses have."""
    one = [np.full(9, scale) for scale in (1.0, 3.0, 10.0)]
    curves, gaps = curves_by_position(twins_of(bigram_model, 1), [[1.2 * loss for loss in one], one], [(0, 1)], 0)
    for (_, loss), (_, gap) in zip(curves["forward0"], gaps["gap"], strict=True):
        assert loss.low is not None and loss.high is not None and loss.high - loss.low > 1
        assert gap[:3] == pytest.approx((0.2, 0.2, 0.2))


def test_seeds_have_a_mean_curve_and_a_mean_gap(bigram_model: EvaluatedModel) -> None:
    readings = [losses([8, 9, 30], factor, factor) for factor in (2.2, 4.8, 2.0, 4.0)]
    curves, gaps = curves_by_position(twins_of(bigram_model, 2), readings, [(0, 2), (1, 3)], 0)
    assert list(curves)[4:] == ["backward: mean of 2", "forward: mean of 2"] and list(gaps) == ["gap 1", "gap 2", "mean gap"]
    assert curves["backward: mean of 2"][0][1].value == pytest.approx(3.5)
    assert [curve[0][1].value for curve in gaps.values()] == pytest.approx([0.1, 0.2, 0.15])


def test_the_interval_is_that_of_the_bootstrap(bigram_model: EvaluatedModel) -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0])
    curves, _ = curves_by_position([bigram_model], [[np.array([value]) for value in values]], [], 3)
    [(x, found)] = curves[bigram_model.name]
    assert x == 1 and found[:4] == pytest.approx(bootstrap(lambda chosen: float(values[chosen].mean()), 4, 3)[:4])
