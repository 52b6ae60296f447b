"""Word reversal: of a text and, for shards, of many texts at once."""

import itertools

import numpy as np
from numpy.typing import NDArray

from config import Order

BLOCK_BYTES = 1 << 16  # reversed at once: the arrays for a block, 24 bytes for each of its bytes, stay in a core's cache


def reverse_words(text: str) -> str:
    """The lines in reverse order and, inside each line, the words in reverse order.

    Words are split at single spaces, so nothing is lost: the function is its own inverse for every string.

    >>> reverse_words("Once upon a time.\\nThe end.")
    'end. The\\ntime. a upon Once'
    """
    return "\n".join([" ".join(line.split(" ")[::-1]) for line in text.split("\n")[::-1]])


def reorder(text: str, order: Order) -> str:
    """Text in the word order of a model, or a model's text in the order of a reader: the same function both ways."""
    return reverse_words(text) if order == "backward" else text


def reorder_all(texts: list[bytes], order: Order) -> list[bytes]:
    """`reorder` of many texts in UTF-8, twice as fast."""
    if order == "forward":
        return texts
    # The reversal of lines reverses their order, so the joined texts go in from last to first.
    backward = _reverse_blocks(b"\n".join(texts[::-1]))
    ends = itertools.accumulate(len(text) + 1 for text in texts)
    return [backward[end - 1 - len(text) : end - 1] for text, end in zip(texts, ends, strict=True)]


def _reverse_blocks(text: bytes) -> bytes:
    blocks, start = [], 0
    while start < len(text):
        end = _block_end(text, start)
        blocks.append(_reverse_block(np.frombuffer(text, np.uint8, end - start, start)))
        blocks.append(text[end : end + 1])  # the separator after the block; none after the last one
        start = end + 1
    return b"".join(blocks[::-1])


def _block_end(text: bytes, start: int) -> int:
    """The place of a separator that ends a block, or the end of the text."""
    size = BLOCK_BYTES
    while start + size < len(text):
        place = max(text.rfind(b" ", start, start + size), text.rfind(b"\n", start, start + size))
        if place >= 0:
            return place
        size *= 2
    return len(text)


def _reverse_block(text: NDArray[np.uint8]) -> bytes:
    """A word at [start, end) of a text of n bytes moves to [n - end, n - start), and the separator before it comes after it."""
    separators = np.flatnonzero((text == ord(" ")) | (text == ord("\n")))
    starts = np.concatenate(([0], separators + 1))
    ends = np.concatenate((separators, [len(text)]))
    sources = np.repeat((starts + ends - len(text))[::-1], (ends - starts + 1)[::-1])[:-1]
    sources += np.arange(len(text))
    sources[len(text) - starts[1:]] = separators
    backward: bytes = text[sources].tobytes()
    return backward
