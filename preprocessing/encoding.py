"""Owns the encoding of chunks: which go to the engine, what becomes of the results, and how a run stops."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from config import SourceConfig
from preprocessing.chunks import Chunk, Item
from preprocessing.engine import EncodeChunk, Engine, Lost, WorkerKilled
from preprocessing.journal import Journal
from preprocessing.ray_engine import RayWorkers
from preprocessing.retries import Retries
from preprocessing.workers import LocalWorkers
from system.amounts import amount
from system.errors import LostConnection, UserError
from system.signals import Stopped, StopSignals


def encode_chunks(
    journal: Journal, chunks: Iterator[Chunk[Item]], encode_chunk: EncodeChunk[Item], config: SourceConfig, unit: str
) -> float:
    """Encode every chunk that the journal lacks, in parallel; returns the speed in MB of text per second."""
    documents = sum(record.documents for record in journal.records.values())
    with (
        contextlib.closing(_make_engine(config, encode_chunk, journal.folder)) as engine,  # first: Ray handles signals in its own way
        StopSignals("stopping after the chunks in progress") as signals,
        tqdm(unit=f" {unit}", initial=documents, disable=None, smoothing=0.1, dynamic_ncols=True) as progress,
    ):
        started, size = time.monotonic(), 0
        ahead: Chunk[Item] | None = None
        more = True
        source_error: UserError | None = None
        retries: dict[int, Retries] = defaultdict(lambda: Retries(config.retries))  # of each chunk
        try:
            while True:
                while more and not ahead and not signals.received:
                    try:
                        ahead = next(chunks, None)
                    except UserError as error:  # finish the chunks in progress first
                        source_error = error
                    more = ahead is not None
                    if ahead and ahead.number in journal.records:
                        ahead = None
                if ahead and not signals.received and engine.has_room():
                    engine.send(ahead)
                    ahead = None
                elif engine.is_busy():
                    chunk, result = engine.receive()
                    if isinstance(result, str):
                        raise UserError(result)
                    if isinstance(result, Lost):
                        retries[chunk.number].wait(
                            f"lost the connection while reading chunk {chunk.number}", LostConnection(result.message, result.pause)
                        )
                        engine.send(chunk)
                        continue
                    journal.add(chunk.number, result)
                    size += result.bytes
                    progress.update(result.documents)
                    progress.set_postfix_str(f"{size / 1e6 / (time.monotonic() - started):.1f} MB/s")
                else:
                    break
        except WorkerKilled as error:
            if not signals.received:  # a signal to the whole process group kills workers too
                raise UserError(str(error)) from error
    if source_error:
        raise source_error
    if signals.received:
        raise Stopped(f"stopped; kept: {amount(len(journal.records), 'chunk')}. Run the same command again to resume", signals.received)
    return size / 1e6 / (time.monotonic() - started)


def _make_engine(config: SourceConfig, encode_chunk: EncodeChunk[Item], folder: Path) -> Engine:
    if config.engine == "ray":
        return RayWorkers(encode_chunk, folder, config.ray_address)
    return LocalWorkers(encode_chunk, folder, config.workers)
