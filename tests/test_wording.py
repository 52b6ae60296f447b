"""Likeness of texts against the libraries asked directly, and against values found by hand."""

import math

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from wording import WordIndex, compare

TRUE = ["What is the cat doing?", "Name a colour of the sky.", "Who wrote it?"]
WRITTEN = ["What is the dog doing?", "Name the colour of the sea.", "Who wrote it?"]


def test_the_figures_are_the_libraries() -> None:
    figures, signatures = compare(WRITTEN, TRUE, 0)
    assert figures["chrF"].value == pytest.approx(sacrebleu.corpus_chrf(WRITTEN, [TRUE]).score)
    assert figures["BLEU"].value == pytest.approx(sacrebleu.corpus_bleu(WRITTEN, [TRUE]).score)
    rouge = RougeScorer(["rougeL"])
    scores = [rouge.score(true, written)["rougeL"].fmeasure for true, written in zip(TRUE, WRITTEN, strict=True)]
    assert figures["ROUGE-L"].value == pytest.approx(100 * sum(scores) / 3)
    assert [signature.split("|")[0] for signature in signatures] == ["chrF", "BLEU"]
    assert all("version:" in signature and "case:mixed" in signature for signature in signatures)


def test_intervals_hold_the_figure_where_some_texts_have_nothing_in_common() -> None:
    figures, _ = compare(["a b c d e f", "x", "y", "z"], ["a b c d e g", "1", "2", "3"], 0)
    for figure in figures.values():
        assert figure.low is not None and figure.high is not None
        assert figure.low <= figure.value <= figure.high
    assert figures["BLEU"].low == 0


def test_by_hand() -> None:
    figures, _ = compare(WRITTEN, TRUE, 0)
    # The longest common sequences: 4 of 5 words, 4 of 6 and 6, 3 of 3.
    assert figures["ROUGE-L"].value == pytest.approx(100 * (4 / 5 + 4 / 6 + 1) / 3)
    assert figures["exact"].value == pytest.approx(1 / 3)
    same, _ = compare(TRUE, TRUE, 0)
    assert [figure.value for figure in same.values()] == pytest.approx([100, 100, 100, 1])
    assert [figure.low for figure in same.values()] == [figure.high for figure in same.values()] == pytest.approx([100, 100, 100, 1])


def test_one_text_alone_has_no_interval() -> None:
    figures, _ = compare(["a b"], ["a b"], 0)
    assert all(figure.low is None for figure in figures.values())


def test_bm25_by_hand() -> None:
    index = WordIndex(["cat dog", "cat fish fish", "bird sings"])
    rare, common = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5)), math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))

    def weight(times: int, length: int) -> float:
        return times / (times + 1.5 * (1 - 0.75 + 0.75 * length / (7 / 3)))

    assert index.scores("fish cat").tolist() == pytest.approx(
        [common * weight(1, 2), common * weight(1, 3) + rare * weight(2, 3), 0], abs=1e-5
    )
    assert index.scores("whale").tolist() == [0, 0, 0]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.text(max_size=20))
def test_texts_of_any_kind_can_be_searched(texts: list[str], query: str) -> None:
    scores = WordIndex(texts).scores(query)
    assert len(scores) == len(texts)
    assert (scores >= 0).all()
