"""Numbers of things in words: one text, two texts."""


def count_of(count: int, noun: str) -> str:
    """The number with its noun, which takes an s unless there is exactly one: `1 text`, `2,000 texts`, `0 other answers`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
