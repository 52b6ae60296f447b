"""Language: how well models predict the same texts, and by how much one is behind its twin."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from checkpoint import Checkpoint
from evaluation import document_logprobs
from figures import Figure, Values, ratio, resampled
from report import Curve, Picture, Section, watched
from scoring import Scorer
from text import arrange

CURVE_POINTS = 24


class Subject(NamedTuple):
    """A model that is judged."""

    name: str
    checkpoint: Checkpoint
    scorer: Scorer

    @property
    def block_size(self) -> int:
        return self.checkpoint.model_config.block_size


class Reading(NamedTuple):
    """What a model made of texts."""

    losses: list[Values]  # nats of every token, text by text
    nats: Values  # of each text
    tokens: Values


def judge_language(
    subjects: Sequence[Subject], texts: Sequence[str], what: str, picture: str, stride: int, seed: int
) -> tuple[Section, Picture]:
    """The loss of each model on the same texts; of twins, the gap between them."""
    section = Section(f"Language: {what}", ("loss, nats a token", "perplexity", "bits per byte"))
    sizes = np.array([len(text.encode()) for text in texts], float)
    readings = []
    for subject in subjects:
        step = stride or max(1, subject.block_size // 2)
        reading = _read(subject, texts, step)
        loss = ratio(reading.nats, reading.tokens, seed)
        low, high = (None if end is None else float(np.exp(end)) for end in (loss.low, loss.high))  # to infinity without complaint
        perplexity = Figure(float(np.exp(loss.value)), low, high, loss.examples, ".2f")
        section.rows[subject.name] = (loss, perplexity, ratio(reading.nats / math.log(2), sizes, seed, ".4f"))
        section.notes.append(
            f"{subject.name}: {int(reading.tokens.sum()):,} tokens, the marks at the ends of texts included, each counted once; "
            f"a window of {subject.block_size} tokens moves by {step}."
        )
        if subject.checkpoint.stage == "tuning":
            section.notes.append(f"{subject.name}: tuning on pairs costs a model its plain text; judge pretraining by its own checkpoint.")
        readings.append(reading)
    if len({subject.checkpoint.stage for subject in subjects}) == 1 < len(subjects):
        one, other = readings
        by_token, by_byte = (resampled(statistic, len(texts), seed, "+.2%") for statistic in gaps(one, other))
        same = len({subject.checkpoint.tokenizer.sha256 for subject in subjects}) == 1
        section.rows["gap"] = (by_token if same else "", "", by_byte)
        section.notes.append(
            "The gap is by how much the first loss is above the second, on the same texts and the same resamples: between these two "
            "trained models, not between all that could be trained so."
        )
        if not same:
            section.notes.append("Their tokenizers differ, so a loss per token of one says nothing beside the other's; bits per byte do.")
    elif len(subjects) > 1:
        section.notes.append("No gap: one is tuned, the other is not.")
    section.notes.append(f"In {picture}, later positions come from the longer texts only.")
    curves = {subject.name: _by_position(reading.losses, seed) for subject, reading in zip(subjects, readings, strict=True)}
    axis = "position in the text, in the order in which the model reads"
    return section, Picture(picture, what, axis, "loss, nats a token", curves)


def gaps(one: Reading, other: Reading) -> tuple[Callable[[NDArray[np.int64]], float], Callable[[NDArray[np.int64]], float]]:
    """By how much the first is above the second, as a share of it: in nats a token, and in nats of the same bytes."""

    def by_byte(chosen: NDArray[np.int64]) -> float:
        return float(one.nats[chosen].sum() / other.nats[chosen].sum() - 1)

    def by_token(chosen: NDArray[np.int64]) -> float:
        return float((by_byte(chosen) + 1) * other.tokens[chosen].sum() / one.tokens[chosen].sum() - 1)

    return by_token, by_byte


def _read(subject: Subject, texts: Sequence[str], stride: int) -> Reading:
    tokenizer, order = subject.checkpoint.tokenizer, subject.checkpoint.order
    boundary = tokenizer.end_of_text
    documents = ([boundary, *tokenizer.encode(arrange(text, order)), boundary] for text in texts)
    losses = [-logprobs for logprobs in watched(document_logprobs(subject.scorer, documents, stride), len(texts), subject.name)]
    nats, tokens = np.array([[loss.sum(), len(loss)] for loss in losses]).T
    return Reading(losses, nats, tokens)


def _by_position(losses: Sequence[Values], seed: int) -> Curve:
    """The mean loss of tokens at about the same position, over the texts that are so long."""
    longest = max(map(len, losses))
    edges = np.unique(np.geomspace(1, longest + 1, CURVE_POINTS).astype(int))
    curve = []
    for low, high in itertools.pairwise(edges):
        parts = [loss[low - 1 : high - 1] for loss in losses if len(loss) >= low]
        sums, counts = np.array([[part.sum(), len(part)] for part in parts]).T
        curve.append((float(low + high - 1) / 2, ratio(sums, counts, seed)))
    return curve
