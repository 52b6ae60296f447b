"""The bytes of a document as text."""


def normalize_line_endings(text: bytes) -> bytes:
    """CRLF becomes LF. Applied to every document before anything else."""
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text  # most texts have none, and checking is fast


def is_unicode(text: str) -> bool:
    """Whether text can be encoded: JSON may contain lone surrogates, which cannot."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text) if not text.isascii() else True


def decode_utf8(text: bytes | None) -> str | None:
    """The text; None for None and for invalid UTF-8 (lone surrogates included)."""
    try:
        return None if text is None else text.decode()
    except UnicodeDecodeError:
        return None
