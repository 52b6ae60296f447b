"""Word reversal: pure functions on strings."""

from typing import Literal

Order = Literal["backward", "forward"]


def reverse_words(text: str) -> str:
    """The lines in reverse order and, inside each line, the words in reverse order.

    Words are split at single spaces, so nothing is lost: the function is its own inverse for every string.

    >>> reverse_words("Once upon a time.\\nThe end.")
    'end. The\\ntime. a upon Once'
    """
    return "\n".join([" ".join(line.split(" ")[::-1]) for line in text.split("\n")[::-1]])


def arrange(text: str, order: Order) -> str:
    """Turn text into the order a model reads it, or a model's text into the order a person reads it."""
    return reverse_words(text) if order == "backward" else text


def normalise_line_ends(text: bytes) -> bytes:
    """CRLF becomes LF. A document is read through this before anything else looks at it."""
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text  # most have none, and that is quick to see


def decode(text: bytes | None) -> str | None:
    """The text, or None where there is none or it is not valid UTF-8 (lone surrogates are not)."""
    try:
        return None if text is None else text.decode()
    except UnicodeDecodeError:
        return None
