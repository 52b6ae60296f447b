"""Word reversal."""

from config import Order


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
