"""Owns the worker processes, which encode chunks in parallel and end when the main process does."""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from tqdm import tqdm

from config import SourceConfig
from preprocessing.chunks import Chunk, Item
from preprocessing.hub import Retries
from preprocessing.journal import ChunkRecord, Journal
from system.errors import UserError, describe_os_error
from system.signals import Stopped, StopSignals

# Forking this process could hang, because it has threads, as readers do: workers are forked from a process that only imports.
# On macOS its libraries do not survive a fork.
START_METHOD: Literal["forkserver", "spawn"] = "forkserver" if sys.platform == "linux" else "spawn"
IMPORTED_ONCE = [
    "preprocessing.documents",
    "preprocessing.instruct_pairs",
    "gigatoken",
    "pyarrow.parquet",
]  # in the process that workers are forked from

BUFFER_BYTES = 1 << 18  # of text, on its way to a worker


class Lost(NamedTuple):
    """What a worker answers that lost its connection while it read a chunk."""

    message: str


class EncodeChunk(Protocol[Item]):
    """Encodes a chunk and writes its shards into a folder; called in a worker process."""

    def __call__(self, chunk: Chunk[Item], folder: Path) -> ChunkRecord: ...


def prepare_workers() -> None:
    """Start the process that workers are forked from, so that it imports while this process reads and trains a tokenizer."""
    if START_METHOD != "forkserver":
        return
    multiprocessing.set_forkserver_preload(IMPORTED_ONCE)
    before = dict(os.environ)
    multiprocessing.resource_tracker.ensure_running()  # or the server would start it, which lets Ctrl-C through again
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


def encode_chunks(
    journal: Journal, chunks: Iterator[Chunk[Item]], encode_chunk: EncodeChunk[Item], config: SourceConfig, unit: str
) -> float:
    """Encode every chunk that the journal lacks, in worker processes; returns the speed in MB of text per second."""
    documents = sum(record.documents for record in journal.records.values())
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    with (
        StopSignals("stopping after the chunks in progress") as signals,
        tqdm(unit=f" {unit}", initial=documents, disable=None, smoothing=0.1, dynamic_ncols=True) as progress,
    ):
        started, size = time.monotonic(), 0
        ahead: Chunk[Item] | None = None
        more = True
        source_error: UserError | None = None
        retries = Retries(config.retries)
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
                if ahead and not signals.received and (idle or len(busy) < config.workers):
                    worker = idle.pop() if idle else _Worker(encode_chunk, journal.folder)
                    busy.append(worker)
                    worker.send(ahead)
                    ahead = None
                elif busy:
                    ready = multiprocessing.connection.wait([worker.connection for worker in busy])
                    for worker in [worker for worker in busy if worker.connection in ready]:
                        record = worker.receive()
                        if isinstance(record, Lost):
                            retries.wait(f"lost the connection while reading chunk {worker.chunk.number}", ConnectionError(record.message))
                            worker.send(worker.chunk)
                            continue
                        retries.restore()
                        journal.add(worker.chunk.number, record)
                        busy.remove(worker)
                        idle.append(worker)
                        size += record.bytes
                        progress.update(record.documents)
                        progress.set_postfix_str(f"{size / 1e6 / (time.monotonic() - started):.1f} MB/s")
                else:
                    break
        except (EOFError, ConnectionError) as error:
            if not signals.received:  # a signal to the whole process group kills workers too
                raise UserError(
                    "a worker process was killed, perhaps because memory ran out. "
                    "Finished chunks are kept: run the same command again with fewer --workers"
                ) from error
        finally:
            for worker in idle + busy:
                worker.stop()
    if source_error:
        raise source_error
    if signals.received:
        raise Stopped(f"stopped; {len(journal.records)} chunks are kept. Run the same command again to resume", signals.received)
    return size / 1e6 / (time.monotonic() - started)


class _Worker:
    """A worker process, as the main process sees it."""

    def __init__(self, encode_chunk: EncodeChunk[Any], folder: Path) -> None:
        context = multiprocessing.get_context(START_METHOD)
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, encode_chunk, folder))  # type: ignore[attr-defined]  # it has
        self._process.start()
        theirs.close()  # so that the connection ends when the worker does

    def send(self, chunk: Chunk[Any]) -> None:
        # As a stream: Connection.send would build the message, as large as the text, in memory, and receive it in small pieces.
        with open(self.connection.fileno(), "wb", BUFFER_BYTES, closefd=False) as stream:
            pickle.dump(chunk, stream, pickle.HIGHEST_PROTOCOL)
        self.chunk = chunk  # perhaps to be sent again

    def receive(self) -> "ChunkRecord | Lost":
        """The record of the chunk sent last."""
        result: ChunkRecord | Lost | str = self.connection.recv()
        if isinstance(result, str):
            raise UserError(result)
        return result

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()
        self.connection.close()


def _work(connection: Connection, encode_chunk: EncodeChunk[Any], folder: Path) -> None:
    """Encode chunk after chunk, in a process of its own; an error is sent as its message."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process decides
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
    main_process_is_gone = contextlib.suppress(EOFError, ConnectionError, pickle.UnpicklingError)
    with main_process_is_gone, open(connection.fileno(), "rb", BUFFER_BYTES, closefd=False) as stream:
        while True:
            connection.send(_result(pickle.load(stream), encode_chunk, folder))


def _result(chunk: Chunk[Any], encode_chunk: EncodeChunk[Any], folder: Path) -> ChunkRecord | Lost | str:
    try:
        return encode_chunk(chunk, folder)
    except ConnectionError as error:
        return Lost(str(error))
    except OSError as error:
        return f"{describe_os_error(error)}; finished chunks are kept"
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  whatever it is, the main process shows it and ends the run
        return f"chunk {chunk.number}, which begins at {chunk.start}: {type(error).__name__}: {error}"


def _exit_with(sentinel: int) -> None:
    """Exit when the parent process does: a worker that encodes would go on until its chunk is done."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
