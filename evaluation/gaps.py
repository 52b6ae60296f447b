"""Gaps between twins: how far each model is behind the one it is compared with, on the same texts, and how much seeds differ."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.bootstrap import Estimate, Indices, Values, bootstrap
from evaluation.evaluated_model import EvaluatedModel, twins
from evaluation.likeness import unlikeness
from evaluation.report import Section
from system.amounts import amount

GAP, MEAN_GAP, SPREAD = "gap", "mean gap", "spread of gaps"  # rows
BY_TOKEN, BY_BYTE = "nats a token", "bits per byte"
Statistic = Callable[[Indices], float]


class TextLosses(NamedTuple):
    """The losses of a model on texts."""

    losses: list[Values]  # nats of each token, text by text
    nats: Values  # of each text
    tokens: Values  # of each text


def gaps(one: TextLosses, other: TextLosses) -> tuple[Statistic, Statistic]:
    """How far the first loss is above the second, as a share of the second: per token and per byte, for chosen texts."""

    def by_byte(chosen: Indices) -> float:
        return float(one.nats[chosen].sum() / other.nats[chosen].sum() - 1)  # of the same bytes

    def by_token(chosen: Indices) -> float:
        return float((by_byte(chosen) + 1) * other.tokens[chosen].sum() / one.tokens[chosen].sum() - 1)

    return by_token, by_byte


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics of the same texts."""
    return lambda chosen: float(np.mean([statistic(chosen) for statistic in statistics]))


def spread_of(statistics: Sequence[Statistic], texts: int, format_spec: str) -> Estimate:
    """The standard deviation between several statistics of all texts: one for each run of training, so no interval."""
    values = [statistic(np.arange(texts)) for statistic in statistics]
    return Estimate(float(np.std(values, ddof=1)), examples=len(values), format_spec=format_spec)


def mean_name(kind: str, count: int) -> str:
    """The row or the curve of the mean of several models of one kind."""
    return f"{kind}: mean of {count}"


def spread_name(kind: str, count: int) -> str:
    """The row of the standard deviation between several models of one kind."""
    return f"{kind}: spread of {count}"


def gap_names(pairs: int) -> list[str]:
    """The rows or the curves of the gaps of so many pairs, and of their mean."""
    return [f"{GAP} {number}" for number in range(1, pairs + 1)] + [MEAN_GAP] if pairs > 1 else [GAP] * pairs


def add_gaps(section: Section, models: Sequence[EvaluatedModel], readings: Sequence[TextLosses], seed: int) -> None:
    """Add a row for each pair of twins and, for several, their mean and spread; a note says why there is none."""
    pairs = twins(models)
    if not has_one_stage(models):
        section.notes.append("No gap: one model is tuned, the other is not.")
        return
    if not pairs:
        return
    section.warnings += unlikeness(models)
    same_tokenizer = has_one_tokenizer(models)
    texts = len(readings[0].nats)
    columns = list(zip(*(gaps(readings[one], readings[other]) for one, other in pairs), strict=True))  # by token, by byte

    def add(row: str, estimates: Iterable[Estimate]) -> None:
        by_token, by_byte = estimates
        section.rows[row] = (by_token if same_tokenizer else "", "", by_byte)

    for name, of_pair in zip(gap_names(len(pairs)), zip(*columns, strict=True), strict=False):
        add(name, (bootstrap(statistic, texts, seed, "+.2%") for statistic in of_pair))
    section.notes.append(
        "A gap is how far the first loss is above the second, on the same texts and the same resamples. Its interval covers the "
        "choice of texts, not the randomness of training."
    )
    if len(pairs) > 1:
        add(MEAN_GAP, (bootstrap(mean_of(statistics), texts, seed, "+.2%") for statistics in columns))
        add(SPREAD, (spread_of(statistics, texts, ".2%") for statistics in columns))
        which = "; ".join(f"gap {number}: {models[one].name} and {models[other].name}" for number, (one, other) in enumerate(pairs, 1))
        section.notes += [
            f"{which[0].upper()}{which[1:]}.",
            f"The spread is the standard deviation between the {len(pairs)} pairs, which is the randomness of training if only their "
            "seeds differ. The interval of the mean gap is again that of the texts, for these models: it does not say where other seeds "
            "would be.",
        ]
    if not same_tokenizer:
        section.notes.append("The tokenizers differ, so only bits per byte can be compared, not the loss per token.")


def has_one_stage(models: Sequence[EvaluatedModel]) -> bool:
    """Whether each model is compared with one of the same stage."""
    return all(models[one].checkpoint.stage == models[other].checkpoint.stage for one, other in twins(models))


def has_one_tokenizer(models: Sequence[EvaluatedModel]) -> bool:
    """Whether a loss per token means the same for all models."""
    return len({model.checkpoint.tokenizer.sha256 for model in models}) == 1


def summarize_gaps(sections: Sequence[Section]) -> Section | None:
    """The gaps of several corpora in one table: the mean gap of several pairs, and their spread; None if there is nothing to compare."""
    sections = list({section.corpus: section for section in sections}.values())
    rows = {section.corpus: section.rows.get(MEAN_GAP) or section.rows.get(GAP) for section in sections}
    spreads = [section.rows.get(SPREAD) for section in sections]
    if len(rows) < 2 or not all(rows.values()):
        return None
    columns = [BY_TOKEN, BY_BYTE, *(f"spread, {column}" for column in (BY_TOKEN, BY_BYTE) if all(spreads))]
    summary = Section("Gaps by corpus", columns, rest_on="text")
    for (corpus, cells), spread in zip(rows.items(), spreads, strict=True):
        assert cells
        if isinstance(cells[2], Estimate) and cells[2].examples:
            summary.remarks[corpus] = amount(cells[2].examples, "text")
        summary.rows[corpus] = [each[place] for each in (cells, spread) if each for place in (0, 2)]
    summary.notes.append("The rows of the sections above, side by side. Each interval covers the choice of texts of its corpus.")
    return summary
