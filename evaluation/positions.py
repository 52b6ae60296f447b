"""The curves by position in the text: the loss of each model and the gap between twins, in the same ranges of the same texts."""

import itertools
from collections.abc import Sequence

import numpy as np

from evaluation.bootstrap import Values, estimate_of, resampled_sums
from evaluation.evaluated_model import EvaluatedModel, kin
from evaluation.gaps import gap_names, has_one_tokenizer, mean_name
from evaluation.report import Curve

CURVE_POINTS = 24
CURVE_SHARE = 0.05  # of the texts must reach a position for it to be drawn: the end of a curve would be that of a few texts


def curves_by_position(
    models: Sequence[EvaluatedModel], losses: Sequence[Sequence[Values]], pairs: Sequence[tuple[int, int]], seed: int
) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """The curves of the loss and those of the gap of each pair, from the loss of each token, for each model text by text."""
    comparable = has_one_tokenizer(models)  # else a position is not the same place in the text, and a token not the same part of it
    means = {mean_name(kind, len(places)): places for kind, places in kin(models).items() if comparable}
    pairs = pairs if comparable else []
    curves: dict[str, Curve] = {name: [] for name in (*(model.name for model in models), *means)}
    gaps: dict[str, Curve] = {name: [] for name in gap_names(len(pairs))}
    for low, high in _ranges(losses):
        reaching = np.all([[len(loss) >= low for loss in of_model] for of_model in losses], axis=0)
        parts = [[loss[low - 1 : high - 1] for loss in itertools.compress(of_model, reaching)] for of_model in losses]
        nats, tokens = (np.array([[size(part) for part in of_model] for of_model in parts], float).T for size in (np.sum, len))
        loss = resampled_sums(nats, seed) / resampled_sums(tokens, seed)  # (1 + resamples, models)
        count = len(nats)
        gap = np.array([loss[:, one] / loss[:, other] - 1 for one, other in pairs])
        middle = (low + high - 1) / 2
        for place, model in enumerate(models):
            curves[model.name].append((middle, estimate_of(loss[:, place], count)))
        for mean, places in means.items():
            curves[mean].append((middle, estimate_of(loss[:, places].mean(axis=1), count)))
        for curve, values in zip(gaps.values(), [*gap, *([gap.mean(axis=0)] if len(pairs) > 1 else [])], strict=True):
            curve.append((middle, estimate_of(values, count, "+.2%")))
    return curves, gaps


def _ranges(losses: Sequence[Sequence[Values]]) -> list[tuple[int, int]]:
    """The first position of each range, from 1, and the first after it; as far as enough texts reach, whichever model reads them."""
    lengths = np.array([[len(loss) for loss in of_model] for of_model in losses]).min(axis=0)
    edges = np.unique(np.geomspace(1, lengths.max() + 1, CURVE_POINTS).astype(int)).tolist()
    return [(low, high) for low, high in itertools.pairwise(edges) if (lengths >= low).mean() >= CURVE_SHARE]
