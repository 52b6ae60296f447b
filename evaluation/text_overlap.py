"""Word overlap of texts: BM25 for search; chrF, BLEU, ROUGE-L and exact matches for comparison with true texts."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Estimate, Indices, Values, bootstrap, mean_estimate


class BM25Index:
    """An index of texts, searched by shared words. The weights are those of BM25 in Lucene."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._size = len(texts)
        self._index = bm25s.BM25()
        words = _words(texts)
        self._is_empty = not any(words)
        if not self._is_empty:
            self._index.index(words, show_progress=False)

    def scores(self, query: str) -> Values:
        """The score of each text for the words of the query."""
        [words] = _words([query])
        if self._is_empty or not words:
            return np.zeros(self._size)
        return np.asarray(self._index.get_scores(words), np.float64)


def overlap_metrics(generated: Sequence[str], true: Sequence[str], seed: int) -> tuple[dict[str, Estimate], list[str]]:
    """How close generated texts come to the true ones, and the signatures that say how sacrebleu computed its scores."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    metrics, signatures = {}, []
    for name, metric in (("chrF", CHRF()), ("BLEU", BLEU())):
        metrics[name] = bootstrap(_corpus_score(metric, _counts_per_text(metric, generated, true)), len(true), seed, ".1f")
        signatures.append(f"{name}|{metric.get_signature()}")
    rouge = RougeScorer(["rougeL"])
    f_measures = np.array([rouge.score(one, other)["rougeL"].fmeasure for one, other in zip(true, generated, strict=True)])
    metrics["ROUGE-L"] = mean_estimate(100 * f_measures, seed, ".1f")
    is_exact = np.array([one == other for one, other in zip(generated, true, strict=True)], float)
    metrics["exact"] = mean_estimate(is_exact, seed, ".1%")
    return metrics, signatures


def _words(texts: Sequence[str]) -> list[list[str]]:
    import bm25s

    # All words count, even the most common ones and single digits: BM25 gives common words little weight in any language.
    words: list[list[str]] = bm25s.tokenize(
        list(texts), token_pattern=r"(?u)\b\w+\b", stopwords=None, return_ids=False, show_progress=False
    )
    return words


def _counts_per_text(metric: Any, generated: Sequence[str], true: Sequence[str]) -> NDArray[Any]:
    """The counts of each text (texts, counts), which sacrebleu sums to score a corpus.

    This method of sacrebleu is private. We need the counts because sacrebleu's own bootstrap fails when a resample has nothing in
    common with the true texts. If a release drops the method, this raises AttributeError and tests/evaluation/test_text_overlap.py
    fails. Then call the public `corpus_score` on the texts of each resample: the same scores, only slower.
    """
    return np.array(metric._extract_corpus_statistics(list(generated), [list(true)]))


def _corpus_score(metric: Any, counts: NDArray[Any]) -> Callable[[Indices], float]:
    """The corpus score of chosen texts, from their counts.

    This method of sacrebleu is private too, and only it can use the counts. If it goes away, do as for `_counts_per_text`.
    """
    return lambda chosen: float(metric._compute_score_from_stats(counts[chosen].sum(axis=0).tolist()).score)
