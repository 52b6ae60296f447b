"""Several scores as one: their weighted sum, with weights that were fitted on other questions than it ranks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Values

FOLDS = 2  # the questions of each are ranked with the weights of the other
RIDGE = 1e-3  # keeps weights finite where the true candidate always wins
STEPS = 100


def combine(scores: Sequence[Values]) -> Values:
    """The scores of candidates, each of shape (questions, candidates) with the true candidate first, as one score of that shape.

    It compares the candidates of one question, not those of two.
    """
    features = np.stack([values / (values.std() or 1) for values in scores], axis=-1)
    fold = np.arange(len(features)) % FOLDS
    combined: Values = np.zeros(features.shape[:2])
    for judged in range(FOLDS):
        combined[fold == judged] = features[fold == judged] @ fit_weights(features[fold != judged])
    return combined


def fit_weights(features: NDArray[np.float64]) -> Values:
    """The weights with which a softmax over the candidates gives the first, the true one, the highest likelihood on average.

    Newton's method on a concave function; a step that does not help is halved.
    """
    weights = np.zeros(features.shape[-1])
    differences = features - features[:, :1]  # to the true candidate
    best = _objective(differences, weights)
    for _ in range(STEPS):
        shares = np.exp(differences @ weights - np.logaddexp.reduce(differences @ weights, axis=1, keepdims=True))
        means = np.einsum("qc,qck->qk", shares, differences)
        gradient = -means.mean(axis=0) - RIDGE * weights
        spread = np.einsum("qc,qck,qcl->kl", shares, differences, differences) - means.T @ means
        step = np.linalg.solve(spread / len(features) + RIDGE * np.eye(len(weights)), gradient)
        while (value := _objective(differences, weights + step)) < best and np.abs(step).max() > 1e-9:
            step /= 2
        if value <= best:
            break
        weights, best = weights + step, value
    return weights


def _objective(differences: NDArray[np.float64], weights: Values) -> float:
    return float(-np.logaddexp.reduce(differences @ weights, axis=1).mean() - RIDGE / 2 * weights @ weights)
