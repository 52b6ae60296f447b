"""Shards with made-up contents."""

from pathlib import Path

import numpy as np

from formats.shards import ShardWriter
from formats.token_stream import TokenStream


def write_stream(folder: Path, lengths: list[int]) -> TokenStream:
    """Shards of these lengths that hold 0, 1, 2, ... one after the other."""
    start = 0
    paths = []
    for index, length in enumerate(lengths):
        with ShardWriter(folder, f"train_{index:05d}.bin") as writer:
            writer.append(np.arange(start, start + length, dtype=np.uint16), 1, length)
            writer.finish()
        paths.append(folder / f"train_{index:05d}.bin")
        start += length
    return TokenStream(paths, lengths)
