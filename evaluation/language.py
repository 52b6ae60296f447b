"""The language sections: how well models predict the same texts, and how far one is behind its twin."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.bootstrap import Estimate, Indices, Values, bootstrap, ratio_estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.logprobs import document_logprobs
from evaluation.report import Curve, Picture, Section, with_progress
from tokens.reversal import reorder

CURVE_POINTS = 24


class TextLosses(NamedTuple):
    """The losses of a model on texts."""

    losses: list[Values]  # nats of each token, text by text
    nats: Values  # of each text
    tokens: Values  # of each text


def measure_language(
    models: Sequence[EvaluatedModel], texts: Sequence[str], name: str, picture: str, stride: int, seed: int
) -> tuple[Section, Picture]:
    """The loss of each model on the same texts; for twins, also the gap between them. `picture` is the file of the curves."""
    section = Section(f"Language: {name}", ("loss, nats a token", "perplexity", "bits per byte"))
    sizes = np.array([len(text.encode()) for text in texts], float)
    readings = []
    for model in models:
        step = stride or max(1, model.block_size // 2)
        reading = _read(model, texts, step)
        loss = ratio_estimate(reading.nats, reading.tokens, seed)
        section.rows[model.name] = (loss, _perplexity(loss), ratio_estimate(reading.nats / math.log(2), sizes, seed, ".4f"))
        section.notes.append(
            f"{model.name}: {int(reading.tokens.sum()):,} tokens, each counted once, including the end token of each text; "
            f"the window of {model.block_size} tokens moves by {step}."
        )
        if model.checkpoint.stage == "tuning":
            section.notes.append(
                f"{model.name}: tuning on pairs makes a model worse at plain text; judge that by its pretrained checkpoint."
            )
        readings.append(reading)
    if len(models) > 1:
        _add_gap(section, models, readings, seed)
    section.notes.append(f"In {picture}, later positions come from the longer texts only.")
    curves = {model.name: _loss_by_position(reading.losses, seed) for model, reading in zip(models, readings, strict=True)}
    axis = "position in the text, in the order in which the model reads"
    return section, Picture(picture, name, axis, "loss, nats a token", curves)


def _read(model: EvaluatedModel, texts: Sequence[str], stride: int) -> TextLosses:
    tokenizer, order = model.checkpoint.tokenizer, model.checkpoint.order
    boundary = tokenizer.end_of_text

    def score(texts: Sequence[str]) -> Iterator[Values]:
        documents = ([boundary, *tokenizer.encode(reorder(text, order)), boundary] for text in texts)
        return with_progress(document_logprobs(model.scorer, documents, stride), len(texts), model.name)

    losses = [-logprobs for logprobs in model.ranks.divided(score, texts)]
    nats, tokens = np.array([[loss.sum(), len(loss)] for loss in losses]).T
    return TextLosses(losses, nats, tokens)


def _perplexity(loss: Estimate) -> Estimate:
    """The exponential of a loss and of its interval; np.exp gives infinity where math.exp raises."""
    low, high = (None if end is None else float(np.exp(end)) for end in (loss.low, loss.high))
    return Estimate(float(np.exp(loss.value)), low, high, loss.examples, ".2f")


def _add_gap(section: Section, models: Sequence[EvaluatedModel], readings: Sequence[TextLosses], seed: int) -> None:
    if len({model.checkpoint.stage for model in models}) > 1:
        section.notes.append("No gap: one model is tuned, the other is not.")
        return
    by_token, by_byte = (bootstrap(gap, len(readings[0].nats), seed, "+.2%") for gap in gaps(*readings))
    same_tokenizer = len({model.checkpoint.tokenizer.sha256 for model in models}) == 1
    section.rows["gap"] = (by_token if same_tokenizer else "", "", by_byte)
    section.notes.append(
        "The gap is how far the first loss is above the second, on the same texts and the same resamples. Its interval covers the "
        "choice of texts, not the randomness of training."
    )
    if not same_tokenizer:
        section.notes.append("The tokenizers differ, so only bits per byte can be compared, not the loss per token.")


def gaps(one: TextLosses, other: TextLosses) -> tuple[Callable[[Indices], float], Callable[[Indices], float]]:
    """How far the first loss is above the second, as a share of the second: per token and per byte, for chosen texts."""

    def by_byte(chosen: Indices) -> float:
        return float(one.nats[chosen].sum() / other.nats[chosen].sum() - 1)  # of the same bytes

    def by_token(chosen: Indices) -> float:
        return float((by_byte(chosen) + 1) * other.tokens[chosen].sum() / one.tokens[chosen].sum() - 1)

    return by_token, by_byte


def _loss_by_position(losses: Sequence[Values], seed: int) -> Curve:
    """The mean loss of tokens in ranges of positions, over the texts that are long enough."""
    longest = max(map(len, losses))
    edges = np.unique(np.geomspace(1, longest + 1, CURVE_POINTS).astype(int))
    curve = []
    for low, high in itertools.pairwise(edges):
        parts = [loss[low - 1 : high - 1] for loss in losses if len(loss) >= low]
        sums, counts = np.array([[part.sum(), len(part)] for part in parts]).T
        curve.append((float(low + high - 1) / 2, ratio_estimate(sums, counts, seed)))
    return curve
