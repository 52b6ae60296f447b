"""Amounts in words: 1 row, 2 rows."""


def amount(count: float, thing: str, things: str = "") -> str:
    """A number with what it counts."""
    number = f"{int(count):,}" if count == int(count) else f"{count:g}"
    return f"{number} {thing if count == 1 else things or thing + 's'}"
