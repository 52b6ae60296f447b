"""Text of users, data sets and models made safe for a terminal: control characters are shown, not sent."""

import sys
import unicodedata
from collections.abc import Iterable
from typing import TextIO


def escape_controls(text: str) -> str:
    """Text that cannot drive a terminal: control characters, and those that change the writing direction, become visible."""
    return "".join(map(_visible, text)) if not text.isascii() or not text.isprintable() else text


def tell(text: str, file: TextIO | None = None) -> None:
    """Print for people, on standard output or in this file: what names of files, settings and data hold cannot drive the terminal."""
    print(escape_controls(text), file=file or sys.stdout, flush=True)


def one_line(text: str, limit: int) -> str:
    """Text on one line of at most `limit` characters, safe for a terminal; a longer text loses its middle."""
    ends = text if len(text) <= 2 * limit else text[:limit] + text[-limit:]  # escaping only makes it longer
    escaped = escape_controls(" ".join(ends.splitlines()))
    if len(text) <= limit and len(escaped) <= limit:
        return escaped
    return f"{escaped[: limit // 2]} ... {escaped[len(escaped) - limit // 2 + 5 :]}"


def listed(names: Iterable[str]) -> str:
    """Names that a file gives, such as those of its fields, on one line."""
    return one_line(", ".join(names), 500)


def _visible(character: str) -> str:
    code = ord(character)
    if character == "\n":
        return character
    if character == "\t":
        return "    "
    if code < 0x20:
        return chr(0x2400 + code)  # the picture of the control character
    if code == 0x7F:
        return "\u2421"
    turns = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in (0x200E, 0x200F, 0x061C)
    if turns or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return f"\\u{code:04x}"
    return character
