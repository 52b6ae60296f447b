"""Owns the worker processes, which encode chunks in parallel and end when the main process does."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from preprocessing.chunks import Chunk, Item
from preprocessing.journal import ChunkRecord, Journal
from system.errors import UserError, describe_os_error
from system.signals import Stopped, StopSignals

# Forking this process could hang, because it has threads, as readers do: workers are forked from a process that only imports.
# On macOS its libraries do not survive a fork.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
IMPORTED_ONCE = ["preprocessing.documents", "preprocessing.instruct_pairs", "gigatoken"]  # in the process that workers are forked from


class EncodeChunk(Protocol[Item]):
    """Encodes a chunk and writes its shards into a folder; called in a worker process."""

    def __call__(self, chunk: Chunk[Item], folder: Path) -> ChunkRecord: ...


def prepare_workers() -> None:
    """Start the process that workers are forked from, so that it imports while this process reads and trains a tokenizer."""
    if START_METHOD != "forkserver":
        return
    multiprocessing.set_forkserver_preload(IMPORTED_ONCE)
    before = dict(os.environ)
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C reaches the whole group; the main process decides
    try:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        os.environ["PYTHONSAFEPATH"] = "1"  # import our modules, not those of the folder in which the command runs
        # Large pages of memory, for tables that gigatoken looks up at random: a tenth less time.
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (before.get("GLIBC_TUNABLES"), "glibc.malloc.hugetlb=1")))
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def encode_chunks(journal: Journal, chunks: Iterator[Chunk[Item]], encode_chunk: EncodeChunk[Item], workers: int, unit: str) -> float:
    """Encode every chunk that the journal lacks, in worker processes; returns the speed in MB of text per second."""
    context = multiprocessing.get_context(START_METHOD)
    pending: dict[Future[ChunkRecord], Chunk[Item]] = {}
    documents = sum(shard.documents for record in journal.records.values() for shards in record.shards.values() for shard in shards)
    with (
        StopSignals("stopping after the chunks in progress") as signals,
        tqdm(unit=f" {unit}", initial=documents, disable=None, smoothing=0.1, dynamic_ncols=True) as progress,
        ProcessPoolExecutor(workers, context, _start_worker, (encode_chunk, journal.folder)) as executor,
    ):
        started, size = time.monotonic(), 0
        more = True
        source_error: UserError | None = None
        try:
            while (more and not signals.received) or pending:
                # One chunk more than there are workers is read ahead, so that no worker waits for the source.
                while more and not signals.received and len(pending) <= workers:
                    try:
                        chunk = next(chunks, None)
                    except UserError as error:  # finish the chunks in progress first
                        chunk, source_error = None, error
                    more = chunk is not None
                    if chunk is not None and chunk.number not in journal.records:
                        pending[executor.submit(_encode, chunk)] = chunk
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    chunk = pending.pop(future)
                    journal.add(chunk.number, _result(future, chunk, executor))
                    size += chunk.size
                    progress.update(len(chunk.items))
                    progress.set_postfix_str(f"{size / 1e6 / (time.monotonic() - started):.1f} MB/s")
        except BrokenProcessPool as error:
            if not signals.received:  # a signal to the whole process group kills workers too
                raise UserError(
                    "a worker process was killed, perhaps because memory ran out. "
                    "Finished chunks are kept: run the same command again with fewer --workers"
                ) from error
    if source_error:
        raise source_error
    if signals.received:
        raise Stopped(f"stopped; {len(journal.records)} chunks are kept. Run the same command again to resume", signals.received)
    return size / 1e6 / (time.monotonic() - started)


def _result(future: Future[ChunkRecord], chunk: Chunk[Item], executor: ProcessPoolExecutor) -> ChunkRecord:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        raise error
    executor.shutdown(wait=False, cancel_futures=True)
    if isinstance(error, OSError):
        raise UserError(f"{describe_os_error(error)}; finished chunks are kept") from error
    raise UserError(f"chunk {chunk.number}, which begins at {chunk.start}: {type(error).__name__}: {error}") from error


def _start_worker(encode_chunk: EncodeChunk[Any], folder: Path) -> None:
    global _assignment
    _assignment = encode_chunk, folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process decides
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    """Exit when the parent process does: after a SIGKILL, an idle worker would wait for work forever."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _encode(chunk: Chunk[Any]) -> ChunkRecord:
    encode_chunk, folder = _assignment
    return encode_chunk(chunk, folder)


_assignment: tuple[EncodeChunk[Any], Path]  # of this worker process, set when it starts
