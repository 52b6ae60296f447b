"""Owns made-up text to preprocess: words with the lengths and the frequencies of natural ones, in sentences, paragraphs and documents.

Against English Wikipedia, measured: 4.9 letters in a word (there 5.2), 3.5 bytes for a token of 8,888 ids (3.5), 5 % of the words
occur once in 30 MB (5 %), and encoding is equally fast.
"""

import itertools

import numpy as np

WORDS_PER_DOCUMENT = 40  # different words, for each document: 400,000 in 30 MB
# Letters in proportion to their frequency, so that parts of words repeat, as a tokenizer needs it.
CONSONANTS, VOWELS = "ttttttnnnnnnsssssshhhhhhrrrrrrddddllllccmmwwffggppybbvk", "eeeeeeeeaaaaaaoooooooiiiiiiuuu"
CLOSED_SHARE = 0.35  # of syllables that end with a consonant
MOST_SYLLABLES = 5
SENTENCE_WORDS, PARAGRAPH_SENTENCES = 18, 5  # on average
DOCUMENT_BYTES, SPREAD = 3000, 0.8  # the average, as in FineWeb, and the deviation of its logarithm
LONGEST_DOCUMENT = 40 * DOCUMENT_BYTES


def made_documents(count: int, seed: int = 0) -> list[str]:
    """This many documents; the same seed gives the same ones."""
    source = np.random.default_rng(seed)
    words = _make_words(WORDS_PER_DOCUMENT * count, source)
    shares = 1 / np.arange(2, len(words) + 2)  # Zipf's law: the second most frequent word is met half as often as the first, and so on
    shares /= shares.sum()
    word_bytes = 1 + float(shares @ np.array([len(word) for word in words]))  # with the space
    sizes = source.lognormal(np.log(DOCUMENT_BYTES) - SPREAD**2 / 2, SPREAD, count).clip(max=LONGEST_DOCUMENT)
    bounds = np.cumsum(shares)
    bounds[-1] = 1
    return [
        _document([words[rank] for rank in np.searchsorted(bounds, source.random(max(int(size / word_bytes), 1))).tolist()], source)
        for size in sizes
    ]


def _make_words(count: int, source: np.random.Generator) -> list[str]:
    """Different words, the most frequent first: rare ones are longer, as in natural text."""
    lengths = np.minimum(1 + source.poisson(np.linspace(0.4, MOST_SYLLABLES - 2.2, 2 * count)), MOST_SYLLABLES)
    first, vowel, last = (source.choice(list(letters), int(lengths.sum())) for letters in (CONSONANTS, VOWELS, CONSONANTS))
    last[source.random(len(last)) > CLOSED_SHARE] = ""
    syllables = map("".join, zip(first.tolist(), vowel.tolist(), last.tolist(), strict=True))
    different = dict.fromkeys("".join(itertools.islice(syllables, length)) for length in lengths.tolist())
    return list(different)[:count]


def _document(words: list[str], source: np.random.Generator) -> str:
    """The words with capitals, commas, full stops and line breaks."""
    ends = [0, *np.flatnonzero(source.random(len(words)) < 1 / SENTENCE_WORDS).tolist(), len(words)]
    sentences = [_sentence(words[start:end]) for start, end in itertools.pairwise(ends) if end > start]
    breaks = (source.random(len(sentences)) < 1 / PARAGRAPH_SENTENCES).tolist()
    return "".join(sentence + ("\n" if ends_here else " ") for sentence, ends_here in zip(sentences, breaks, strict=True)).rstrip()


def _sentence(words: list[str]) -> str:
    middle = len(words) // 2
    halves = (" ".join(words[:middle]), " ".join(words[middle:]))
    return ", ".join(half for half in halves if half).capitalize() + "."
