"""The language sections: how well models predict the same texts, with the mean and the spread of several seeds."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.bootstrap import Estimate, Values, bootstrap, ratio_estimate
from evaluation.evaluated_model import EvaluatedModel, kin, twins
from evaluation.gaps import (
    GAP,
    MEAN_GAP,
    Statistic,
    TextLosses,
    add_gaps,
    has_one_stage,
    has_one_tokenizer,
    mean_name,
    mean_of,
    spread_name,
    spread_of,
)
from evaluation.logprobs import document_logprobs
from evaluation.positions import CURVE_SHARE, curves_by_position
from evaluation.report import Picture, Section, with_progress
from system.amounts import amount
from tokens.reversal import reorder

AXIS = "position in the text, in the order in which the model reads"
COLUMNS = ("loss, nats a token", "perplexity", "bits per byte")
JUDGE = "judge its text by its pretrained checkpoint"


def measure_language(
    models: Sequence[EvaluatedModel], texts: Sequence[str], name: str, picture: str, stride: int, seed: int
) -> tuple[Section, Picture]:
    """The loss of each model on the same texts; for twins, also the gap between them. `picture` is the file of the curves."""
    section = Section(f"Language: {name}", COLUMNS, models_in_rows=True, rest_on="text")
    sizes = np.array([len(text.encode()) for text in texts], float)
    readings, notes = [], []
    for model in models:
        step = stride or max(1, model.block_size // 2)
        reading = _read(model, texts, step)
        loss = ratio_estimate(reading.nats, reading.tokens, seed)
        section.rows[model.name] = (loss, _perplexity(loss), ratio_estimate(reading.nats / math.log(2), sizes, seed, ".4f"))
        notes.append(
            f"{model.kind or model.name}: {amount(int(reading.tokens.sum()), 'token')} of {amount(len(texts), 'text')}, each counted "
            f"once, including the end token of each text; the window of {amount(model.block_size, 'token')} moves by {step:,}."
        )
        if model.checkpoint.stage == "tuning":
            section.remarks[model.name] = JUDGE
        readings.append(reading)
    section.notes += dict.fromkeys(notes)  # seeds have the same one
    _add_seeds(section, models, readings, sizes, seed)
    add_gaps(section, models, readings, seed)
    drawn = _drawn(models)
    pairs = twins(models) if len(drawn) == len(models) and has_one_stage(models) else []
    curves, gaps = curves_by_position([models[place] for place in drawn], [readings[place].losses for place in drawn], pairs, seed)
    section.notes.append(
        f"In {picture}, later positions come from the longer texts only, as far as {CURVE_SHARE:.0%} of the texts reach"
        + (", and the models share ranges and texts." if len(drawn) > 1 else ".")
        + _left_out(models, drawn)
    )
    after = "" if models[drawn[0]].checkpoint.stage == "pretraining" else ", after tuning on pairs"
    title = f"Loss by position in the text{after}: {name}, {amount(len(texts), 'text')}"
    families = {model.name: model.kind for model in models if model.kind}
    means = {mean_name(kind, len(places)): kind for kind, places in kin(models).items()}
    families |= {**means, **(dict.fromkeys(gaps, GAP) if len(gaps) > 1 else {})}
    return section, Picture(picture, title, AXIS, COLUMNS[0], curves, families=families, means={*means, MEAN_GAP}, gaps=gaps)


def _drawn(models: Sequence[EvaluatedModel]) -> list[int]:
    """The places of the pretrained models if there are any: tuning on pairs makes a model worse at plain text, and its curve beside the
    others would look like a disaster."""
    pretrained = [place for place, model in enumerate(models) if model.checkpoint.stage == "pretraining"]
    return pretrained or list(range(len(models)))


def _left_out(models: Sequence[EvaluatedModel], drawn: Sequence[int]) -> str:
    names = [model.name for place, model in enumerate(models) if place not in drawn]
    return f" Tuned models are left out there: {', '.join(names)}." if names else ""


def _add_seeds(section: Section, models: Sequence[EvaluatedModel], readings: Sequence[TextLosses], sizes: Values, seed: int) -> None:
    """Where several models are of one kind: a row with their mean and one with the standard deviation between them."""
    for kind, places in kin(models).items():
        by_token = [_ratio(readings[place].nats, readings[place].tokens) for place in places]
        by_byte = [_ratio(readings[place].nats / math.log(2), sizes) for place in places]
        mean, loss = bootstrap(mean_of(by_byte), len(sizes), seed, ".4f"), bootstrap(mean_of(by_token), len(sizes), seed)
        comparable = has_one_tokenizer([models[place] for place in places])
        section.rows[mean_name(kind, len(places))] = (loss, _perplexity(loss), mean) if comparable else ("", "", mean)
        spread, deviation = spread_of(by_token, len(sizes), ".3f"), spread_of(by_byte, len(sizes), ".4f")
        section.rows[spread_name(kind, len(places))] = (spread if comparable else "", "", deviation)
    if kin(models):
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
