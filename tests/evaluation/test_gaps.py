"""Gaps between twins: by hand, pair by pair, with the mean and the spread, and corpora side by side."""

import numpy as np
import pytest

from evaluation.bootstrap import Estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.gaps import GAP, MEAN_GAP, SPREAD, TextLosses, add_gaps, gaps, summarize_gaps
from evaluation.report import Section

TOKENS = np.array([10.0, 20.0, 40.0])


def losses(nats_a_token: float) -> TextLosses:
    """A model to which every token costs the same."""
    return TextLosses([], nats_a_token * TOKENS, TOKENS)


def test_the_gap_by_hand() -> None:
    one, other = (TextLosses([], factor * TOKENS, TOKENS * length) for factor, length in ((2.2, 1.1), (2.0, 1.0)))
    by_token, by_byte = gaps(one, other)
    for chosen in (np.array([0, 1, 2]), np.array([2, 2, 0])):
        assert by_token(chosen) == pytest.approx(0)  # 2 nats per token in both
        assert by_byte(chosen) == pytest.approx(0.1)


def seeds(model: EvaluatedModel, count: int) -> list[EvaluatedModel]:
    """As many models as others, in the order in which they are loaded."""
    kin = [model._replace(name=f"bigram model {number + 1}") for number in range(count)]
    return [*kin, *(each._replace(name=each.name.replace("bigram model", "other"), is_other=True) for each in kin)]


def test_several_pairs_have_a_mean_and_a_spread(bigram_model: EvaluatedModel) -> None:
    """A0 is 10 % above B0, and A1 20 % above B1, though B1 is twice as bad: the mean is over the gaps, not over the losses."""
    section = Section("Language")
    add_gaps(section, seeds(bigram_model, 2), [losses(2.2), losses(4.8), losses(2.0), losses(4.0)], seed=0)
    assert list(section.rows) == ["gap 1", "gap 2", MEAN_GAP, SPREAD]
    for name, value in (("gap 1", 0.1), ("gap 2", 0.2), (MEAN_GAP, 0.15), (SPREAD, 0.1 / 2**0.5)):
        by_token, empty, by_byte = section.rows[name]
        assert isinstance(by_token, Estimate) and isinstance(by_byte, Estimate) and empty == ""
        assert by_token.value == pytest.approx(value) and by_byte.value == pytest.approx(value)
        assert (by_byte.low is None) == (name == SPREAD)  # it is between runs, so it is no interval over texts
    assert "Gap 1: bigram model 1 and other 1; gap 2: bigram model 2 and other 2." in section.notes


def test_one_pair_has_one_gap(bigram_model: EvaluatedModel) -> None:
    section = Section("Language")
    add_gaps(section, seeds(bigram_model, 1), [losses(2.2), losses(2.0)], seed=0)
    assert list(section.rows) == [GAP]
    alone = Section("Language")
    add_gaps(alone, [bigram_model] * 2, [losses(2.2), losses(2.0)], seed=0)
    assert not alone.rows and not alone.notes  # two seeds and no twin


def test_the_summary_has_a_row_for_each_corpus(bigram_model: EvaluatedModel) -> None:
    sections = []
    for corpus, factor in (("prose", 1.1), ("code", 1.3)):
        section = Section(f"Language: {corpus}", corpus=corpus)
        add_gaps(section, seeds(bigram_model, 2), [losses(2 * factor), losses(4 * factor), losses(2.0), losses(4.0)], seed=0)
        sections.append(section)
    summary = summarize_gaps(sections)
    assert summary
    assert summary.columns == ["nats a token", "bits per byte", "spread, nats a token", "spread, bits per byte"]
    values = {row: [cell.value for cell in cells if isinstance(cell, Estimate)] for row, cells in summary.rows.items()}
    assert values == {"prose": pytest.approx([0.1, 0.1, 0, 0]), "code": pytest.approx([0.3, 0.3, 0, 0])}
    assert summary.remarks == {"prose": "3 texts", "code": "3 texts"}
    assert summarize_gaps(sections[:1]) is None  # one corpus says all in its own section
    assert summarize_gaps([*sections, Section("Language: x", corpus="x")]) is None  # without twins
