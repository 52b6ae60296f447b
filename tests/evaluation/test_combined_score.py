"""A combination of scores: as good as the better one, blind to the questions it ranks, and better where each knows something."""

import numpy as np

from evaluation.bootstrap import Values
from evaluation.combined_score import combine, fit_weights


def first(scores: Values) -> float:
    return float((scores[:, :1] > scores[:, 1:]).all(axis=1).mean())


def noisy(signal: float, seed: int, questions: int = 400) -> Values:
    """Scores of the true candidate and 20 others; the first is higher by `signal` standard deviations."""
    scores = np.random.default_rng(seed).normal(size=(questions, 21))
    scores[:, 0] += signal
    return scores


def test_two_scores_that_each_know_something_are_better_together() -> None:
    one, two = noisy(2, 0), 1000 * noisy(2, 1)  # of another size
    assert first(combine([one, two])) > max(first(one), first(two)) + 0.1


def test_a_score_that_knows_nothing_does_not_hurt() -> None:
    one, noise = noisy(3, 0), noisy(0, 1)
    assert abs(first(combine([one, noise])) - first(one)) < 0.02


def test_a_score_that_is_wrong_gets_a_negative_weight() -> None:
    weights = fit_weights(np.stack([noisy(-2, 0), noisy(1, 1)], axis=-1))
    assert weights[0] < 0 < weights[1]


def test_the_weights_of_a_question_are_fitted_on_others() -> None:
    """With labels that mean nothing, fitting on the judged questions would find something."""
    features = [noisy(0, seed, questions=6) for seed in range(5)]
    found = [first(combine([np.roll(values, shift, axis=1) for values in features])) for shift in range(21)]
    assert abs(np.mean(found) - 1 / 21) < 0.05


def test_a_perfect_score_has_finite_weights() -> None:
    scores = noisy(100, 0)
    assert np.isfinite(combine([scores, noisy(0, 1)])).all()
    assert first(combine([scores, noisy(0, 1)])) == 1


def test_equal_scores_tie() -> None:
    assert (combine([np.zeros((4, 3)), np.zeros((4, 3))]) == 0).all()


def test_the_weights_are_those_of_the_highest_likelihood() -> None:
    features = np.stack([noisy(1, 0), noisy(0.5, 1)], axis=-1)

    def likelihood(weights: Values) -> float:
        return float((features[:, 0] @ weights - np.logaddexp.reduce(features @ weights, axis=1)).mean() - 0.0005 * weights @ weights)

    weights = fit_weights(features)
    assert all(likelihood(weights) > likelihood(weights + step) for step in np.random.default_rng(0).normal(scale=0.01, size=(50, 2)))
