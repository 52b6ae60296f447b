"""How surprising each word of a generated text was to the model."""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Word(NamedTuple):
    """A word, or the white space between two words, in the order of a reader."""

    text: str
    bits: float | None = None  # -log2 P of its tokens; None for white space and for what was given


def surprising_words(decode: Callable[[list[int]], str], ids: Sequence[int], logprobs: Sequence[float], is_backward: bool) -> list[Word]:
    """The words of a text. `decode` gives the text in the order of the model for some of the ids, after what was given."""
    ends = [len(decode(list(ids[:count]))) for count in range(len(ids) + 1)]
    for count in reversed(range(len(ids))):  # the first bytes of a character are shown as more characters than it will be
        ends[count] = min(ends[count], ends[count + 1])
    text, given = decode(list(ids)), ends[0]
    words: list[Word] = []
    for match in re.finditer(r"[^ \n]+|[ \n]", text):
        first, last = match.span()
        # A token counts for the word in which it ends: the space before a word is a part of its first token.
        own = [logprob for end, logprob in zip(ends[1:], logprobs, strict=True) if max(first, given) < end <= last]
        is_written = last > given and match[0] not in " \n"
        words.append(Word(match[0], -math.fsum(own) / math.log(2) if is_written else None))
    return words[::-1] if is_backward else words
