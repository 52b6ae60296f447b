"""The language sections: how well models predict the same texts, with the mean and the spread of several seeds."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.bootstrap import Estimate, Values, bootstrap, ratio_estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.gaps import Statistic, TextLosses, add_gaps, has_one_tokenizer, mean_of, spread_of
from evaluation.logprobs import document_logprobs
from evaluation.report import Curve, Picture, Section, with_progress
from tokens.reversal import reorder

CURVE_POINTS = 24
CURVE_SHARE = 0.05  # of the texts must reach a position for it to be drawn: the end of a curve would be that of a few texts
COLUMNS = ("loss, nats a token", "perplexity", "bits per byte")
JUDGE = "judge its text by its pretrained checkpoint"


def measure_language(
    models: Sequence[EvaluatedModel], texts: Sequence[str], name: str, picture: str, stride: int, seed: int
) -> tuple[Section, Picture]:
    """The loss of each model on the same texts; for twins, also the gap between them. `picture` is the file of the curves."""
    section = Section(f"Language: {name}", COLUMNS, models_in="rows")
    sizes = np.array([len(text.encode()) for text in texts], float)
    readings, notes = [], []
    for model in models:
        step = stride or max(1, model.block_size // 2)
        reading = _read(model, texts, step)
        loss = ratio_estimate(reading.nats, reading.tokens, seed)
        section.rows[model.name] = (loss, _perplexity(loss), ratio_estimate(reading.nats / math.log(2), sizes, seed, ".4f"))
        notes.append(
            f"{model.kind or model.name}: {int(reading.tokens.sum()):,} tokens, each counted once, including the end token of each text; "
            f"the window of {model.block_size} tokens moves by {step}."
        )
        if model.checkpoint.stage == "tuning":
            section.remarks[model.name] = JUDGE
        readings.append(reading)
    section.notes += dict.fromkeys(notes)  # seeds have the same one
    _add_seeds(section, models, readings, sizes, seed)
    add_gaps(section, models, readings, seed)
    # Tuning on pairs makes a model worse at plain text, and its curve beside the others would look like a disaster.
    pretrained = [place for place, model in enumerate(models) if model.checkpoint.stage == "pretraining"]
    drawn = pretrained or list(range(len(models)))
    curves = {models[place].name: _loss_by_position(readings[place].losses, seed) for place in drawn}
    section.notes.append(
        f"In {picture}, later positions come from the longer texts only, as far as {CURVE_SHARE:.0%} of the texts reach."
        + _left_out(models, drawn)
    )
    axis = "position in the text, in the order in which the model reads"
    title = f"Loss by position in the text{'' if pretrained else ', after tuning on pairs'}: {name}"
    return section, Picture(picture, title, axis, COLUMNS[0], curves)


def _left_out(models: Sequence[EvaluatedModel], drawn: Sequence[int]) -> str:
    names = [model.name for place, model in enumerate(models) if place not in drawn]
    return f" Tuned models are left out there: {', '.join(names)}." if names else ""


def _add_seeds(section: Section, models: Sequence[EvaluatedModel], readings: Sequence[TextLosses], sizes: Values, seed: int) -> None:
    """Where several models are of one kind: a row with their mean and one with the standard deviation between them."""
    for kind in dict.fromkeys(model.kind for model in models if model.kind):
        places = [place for place, model in enumerate(models) if model.kind == kind]
        by_token = [_ratio(readings[place].nats, readings[place].tokens) for place in places]
        by_byte = [_ratio(readings[place].nats / math.log(2), sizes) for place in places]
        mean, loss = bootstrap(mean_of(by_byte), len(sizes), seed, ".4f"), bootstrap(mean_of(by_token), len(sizes), seed)
        comparable = has_one_tokenizer([models[place] for place in places])
        section.rows[f"{kind}: mean of {len(places)}"] = (loss, _perplexity(loss), mean) if comparable else ("", "", mean)
        spread, deviation = spread_of(by_token, len(sizes), ".3f"), spread_of(by_byte, len(sizes), ".4f")
        section.rows[f"{kind}: spread of {len(places)}"] = (spread if comparable else "", "", deviation)
    if any(model.kind for model in models):
        section.notes.append(
            "A spread is the standard deviation between models, which is between seeds where only the seed differs. "
            "Intervals are those of the texts."
        )


def _ratio(numerators: Values, denominators: Values) -> Statistic:
    return lambda chosen: float(numerators[chosen].sum() / denominators[chosen].sum())


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


def _loss_by_position(losses: Sequence[Values], seed: int) -> Curve:
    """The mean loss of tokens in ranges of positions, over the texts that are long enough."""
    longest = max(map(len, losses))
    edges = np.unique(np.geomspace(1, longest + 1, CURVE_POINTS).astype(int))
    curve = []
    for low, high in itertools.pairwise(edges):
        parts = [loss[low - 1 : high - 1] for loss in losses if len(loss) >= low]
        if len(parts) < CURVE_SHARE * len(losses):
            break
        sums, counts = np.array([[part.sum(), len(part)] for part in parts]).T
        curve.append((float(low + high - 1) / 2, ratio_estimate(sums, counts, seed)))
    return curve
