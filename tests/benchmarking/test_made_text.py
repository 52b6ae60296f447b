"""Made-up text looks like text: lengths, frequencies, and the same for the same seed."""

from collections import Counter
from statistics import mean

from benchmarking.made_text import DOCUMENT_BYTES, made_documents


def test_a_seed_gives_its_text() -> None:
    assert made_documents(5, seed=3) == made_documents(5, seed=3)
    assert made_documents(5, seed=3) != made_documents(5, seed=4)


def test_words_and_documents_have_natural_sizes() -> None:
    documents = made_documents(400)
    words = [word.strip(".,").lower() for document in documents for word in document.split()]
    counts = Counter(words)
    assert 0.8 < mean(map(len, documents)) / DOCUMENT_BYTES < 1.2
    assert 4 < mean(map(len, words)) < 6
    assert 0.1 < sum(count for _, count in counts.most_common(10)) / len(words) < 0.3
    rare = [word for word, count in counts.items() if count == 1]
    assert mean(map(len, rare)) > mean(map(len, words)) + 1
    assert all(document.isascii() and document == document.strip() and document.endswith(".") for document in documents)
    assert any("\n" in document for document in documents)
