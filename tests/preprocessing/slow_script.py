"""Runs a script with small chunks and a pause after reading each, so that a test can interrupt it between chunks.

python -m tests.preprocessing.slow_script preprocess_xcoax.py FLAGS
"""

import runpy
import sys
import time
from collections.abc import Iterator
from unittest import mock

from config import SourceConfig
from preprocessing.chunks import Chunk, Item
from preprocessing.encoding import encode_chunks
from preprocessing.engine import EncodeChunk
from preprocessing.journal import Journal

SMALL_CHUNK = 100  # documents or pairs
PAUSE_SECONDS = 0.1


def _slowly(chunks: Iterator[Chunk[Item]]) -> Iterator[Chunk[Item]]:
    for chunk in chunks:
        yield chunk
        time.sleep(PAUSE_SECONDS)


def _encode_slowly(
    journal: Journal, chunks: Iterator[Chunk[Item]], encode_chunk: EncodeChunk[Item], config: SourceConfig, unit: str
) -> float:
    return encode_chunks(journal, _slowly(chunks), encode_chunk, config, unit)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    with (
        mock.patch("preprocessing.chunks.CHUNK_DOCUMENTS", SMALL_CHUNK),
        mock.patch("preprocessing.pipeline.encode_chunks", _encode_slowly),
    ):
        runpy.run_path(sys.argv[0], run_name="__main__")
