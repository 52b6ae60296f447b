"""How alike texts are by their words: BM25 to search by, and chrF, BLEU and ROUGE-L to compare by."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from figures import Figure, Values, mean, resampled


class WordIndex:
    """Texts that can be searched for those that share words with another: BM25 as Lucene computes it."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._size = len(texts)
        self._index = bm25s.BM25()
        words = _words(texts)
        self._is_empty = not any(words)
        if not self._is_empty:
            self._index.index(words, show_progress=False)

    def scores(self, query: str) -> Values:
        """How well each text answers to the words of the query."""
        [words] = _words([query])
        if self._is_empty or not words:
            return np.zeros(self._size)
        return np.asarray(self._index.get_scores(words), np.float64)


def _words(texts: Sequence[str]) -> list[list[str]]:
    import bm25s

    # All words count, the commonest and single digits too: their weight says how little they mean, in any language.
    words: list[list[str]] = bm25s.tokenize(
        list(texts), token_pattern=r"(?u)\b\w+\b", stopwords=None, return_ids=False, show_progress=False
    )
    return words


def compare(written: Sequence[str], true: Sequence[str], seed: int) -> tuple[dict[str, Figure], list[str]]:
    """How close texts come to the true ones, and the signatures that say how the libraries counted."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    figures, signatures = {}, []
    for name, metric in (("chrF", CHRF()), ("BLEU", BLEU())):
        # The counts of each text, which the library adds up: its own bootstrap fails where a resample has nothing in common.
        counts = np.array(metric._extract_corpus_statistics(list(written), [list(true)]))
        figures[name] = resampled(_score(metric, counts), len(true), seed, ".1f")
        signatures.append(f"{name}|{metric.get_signature()}")
    rouge = RougeScorer(["rougeL"])
    overlap = np.array([rouge.score(one, other)["rougeL"].fmeasure for one, other in zip(true, written, strict=True)])
    figures["ROUGE-L"] = mean(100 * overlap, seed, ".1f")
    figures["exact"] = mean(np.array([one == other for one, other in zip(written, true, strict=True)], float), seed, ".1%")
    return figures, signatures


def _score(metric: Any, counts: NDArray[Any]) -> Callable[[NDArray[np.int64]], float]:
    return lambda chosen: float(metric._compute_score_from_stats(counts[chosen].sum(axis=0).tolist()).score)
