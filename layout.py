"""How an instruction pair lies in token ids, and what of a response fits there.

    <|endoftext|><|im_start|><|response|> response <|im_end|><|im_start|><|instruction|> instruction <|im_end|>

Both texts in the order of the model. All up to and including <|instruction|> is the prompt of a model that is asked.
"""

import re
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from text import Order, arrange
from tokenizer import END_OF_TEXT, Tokenizer

LEAST_RESPONSE = 8  # ids: a response cut to fewer says nothing of its instruction


class Layout:
    """The form of a pair in the ids of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, order: Order) -> None:
        self.tokenizer = tokenizer
        self.order = order
        self.begin = self._ids(END_OF_TEXT, "<|im_start|>", "<|response|>")
        self.between = self._ids("<|im_end|>", "<|im_start|>", "<|instruction|>")
        self.end = self._ids("<|im_end|>")

    @property
    def frame(self) -> int:
        """Ids of a pair that are not of its texts."""
        return len(self.begin) + len(self.between) + len(self.end)

    @property
    def stop(self) -> frozenset[int]:
        """The ids that end an instruction."""
        return frozenset([*self.end, self.tokenizer.end_of_text])

    def prompt(self, response: list[int]) -> list[int]:
        """What the model is asked with."""
        return [*self.begin, *response, *self.between]

    def pair(self, response: NDArray[np.uint16], instruction: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """A whole pair."""
        return np.concatenate([self.begin, response, self.between, instruction, self.end]).astype(np.uint16)

    def read(self, ids: Iterable[int]) -> str:
        """The text of ids as a person reads it."""
        return arrange(self.tokenizer.decode(ids), self.order)

    def fit(self, response: str, room: int) -> tuple[list[int], str]:
        """The ids, at most `room` of them, of a response or of what fits of it, and that text.

        Kept is its beginning, which lies nearest to the instruction, up to the end of a word; where that would leave half of
        the room empty, as in scripts that put no spaces, up to a character.
        """
        # No piece is longer, so what lies behind cannot fit: a response of millions of characters costs what a long one costs.
        shortened = response[: room * self._longest_piece + 1]
        ids = self._encode(shortened)
        if len(ids) <= room and len(shortened) == len(response):
            return ids, response
        ends = [match.start() for match in re.finditer(r"[ \n]+", shortened) if match.start()]
        fitting = self._largest(shortened, ends, room)
        ids = self._encode(shortened[:fitting])
        if len(ids) < room // 2:
            fitting = self._largest(shortened, range(1, len(shortened) + 1), room)
            ids = self._encode(shortened[:fitting])
        return ids, shortened[:fitting]

    def _largest(self, text: str, ends: "list[int] | range", room: int) -> int:
        """The last of the ends up to which the text fits; 0 for none."""
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            if len(self._encode(text[: ends[middle]])) <= room:
                low = middle + 1
            else:
                high = middle
        return ends[low - 1] if low else 0

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(arrange(text, self.order))

    def _ids(self, *tokens: str) -> list[int]:
        return [self.tokenizer.special_id(token) for token in tokens]

    @cached_property
    def _longest_piece(self) -> int:
        """Characters that one id can stand for."""
        return max(len(self.tokenizer.decode([id])) for id in range(self.tokenizer.vocab_size))
