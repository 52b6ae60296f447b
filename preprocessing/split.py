"""Owns the split into training and validation: by a hash of the text, so that copies of a text are on the same side."""

import hashlib

HASH_RANGE = 1 << 64


def text_hash(text: bytes) -> int:
    """A number below HASH_RANGE that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def held_out_bound(share: float, hashes: list[int]) -> int:
    """The bound below which a hash means validation: the share, raised if needed so that one of these is held out."""
    return max(round(share * HASH_RANGE), min(hashes, default=0) + 1)
