"""Word overlap, against the libraries called directly and against values computed by hand."""

import math

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from evaluation.text_overlap import BM25Index, overlap_metrics

TRUE = ["What is the cat doing?", "Name a colour of the sky.", "Who wrote it?"]
GENERATED = ["What is the dog doing?", "Name the colour of the sea.", "Who wrote it?"]


def test_the_scores_are_those_of_the_libraries() -> None:
    metrics, signatures = overlap_metrics(GENERATED, TRUE, 0)
    assert metrics["chrF"].value == pytest.approx(sacrebleu.corpus_chrf(GENERATED, [TRUE]).score)
    assert metrics["BLEU"].value == pytest.approx(sacrebleu.corpus_bleu(GENERATED, [TRUE]).score)
    rouge = RougeScorer(["rougeL"])
    scores = [rouge.score(true, generated)["rougeL"].fmeasure for true, generated in zip(TRUE, GENERATED, strict=True)]
    assert metrics["ROUGE-L"].value == pytest.approx(100 * sum(scores) / 3)
    assert [signature.split("|")[0] for signature in signatures] == ["chrF", "BLEU"]
    assert all("version:" in signature and "case:mixed" in signature for signature in signatures)


def test_an_interval_contains_its_value_even_if_some_texts_have_nothing_in_common() -> None:
    metrics, _ = overlap_metrics(["a b c d e f", "x", "y", "z"], ["a b c d e g", "1", "2", "3"], 0)
    for estimate in metrics.values():
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
    assert metrics["BLEU"].low == 0


def test_overlap_by_hand() -> None:
    metrics, _ = overlap_metrics(GENERATED, TRUE, 0)
    # Longest common subsequences: 4 of 5 words, 4 of 6, 3 of 3.
    assert metrics["ROUGE-L"].value == pytest.approx(100 * (4 / 5 + 4 / 6 + 1) / 3)
    assert metrics["exact"].value == pytest.approx(1 / 3)
    same, _ = overlap_metrics(TRUE, TRUE, 0)
    assert [estimate.value for estimate in same.values()] == pytest.approx([100, 100, 100, 1])
    assert (
        [estimate.low for estimate in same.values()] == [estimate.high for estimate in same.values()] == pytest.approx([100, 100, 100, 1])
    )


def test_a_single_text_has_no_interval() -> None:
    metrics, _ = overlap_metrics(["a b"], ["a b"], 0)
    assert all(estimate.low is None for estimate in metrics.values())


def test_bm25_by_hand() -> None:
    index = BM25Index(["cat dog", "cat fish fish", "bird sings"])
    rare, common = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5)), math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))

    def term_weight(times: int, length: int) -> float:
        return times / (times + 1.5 * (1 - 0.75 + 0.75 * length / (7 / 3)))

    assert index.scores("fish cat").tolist() == pytest.approx(
        [common * term_weight(1, 2), common * term_weight(1, 3) + rare * term_weight(2, 3), 0], abs=1e-5
    )
    assert index.scores("whale").tolist() == [0, 0, 0]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.text(max_size=20))
def test_any_text_can_be_indexed_and_searched(texts: list[str], query: str) -> None:
    scores = BM25Index(texts).scores(query)
    assert len(scores) == len(texts)
    assert (scores >= 0).all()
