"""Owns the worker processes on this machine, which end when the main process does."""

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
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from preprocessing.chunks import Chunk
from preprocessing.engine import EncodeChunk, Result, WorkerKilled, encode

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


class LocalWorkers:
    """Worker processes on this machine."""

    def __init__(self, encode_chunk: EncodeChunk[Any], folder: Path, count: int) -> None:
        self._encode_chunk = encode_chunk
        self._folder = folder
        self._count = count
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def has_room(self) -> bool:
        return bool(self._idle) or len(self._busy) < self._count

    def is_busy(self) -> bool:
        return bool(self._busy)

    def send(self, chunk: Chunk[Any]) -> None:
        worker = self._idle.pop() if self._idle else _Worker(self._encode_chunk, self._folder)
        self._busy.append(worker)
        with _noticing_a_kill():
            worker.send(chunk)

    def receive(self) -> tuple[Chunk[Any], Result]:
        [ready, *_] = multiprocessing.connection.wait([worker.connection for worker in self._busy])
        worker = next(worker for worker in self._busy if worker.connection is ready)
        with _noticing_a_kill():
            result = worker.receive()
        self._busy.remove(worker)
        self._idle.append(worker)
        return worker.chunk, result

    def close(self) -> None:
        for worker in self._idle + self._busy:
            worker.stop()


@contextlib.contextmanager
def _noticing_a_kill() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise WorkerKilled(
            "a worker process was killed, perhaps because memory ran out. "
            "Finished chunks are kept: run the same command again with fewer --workers"
        ) from error


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
        # Perhaps it is sent again; but items in memory were read before, and no connection is lost with them.
        self.chunk = chunk._replace(items=[]) if isinstance(chunk.items, list) else chunk

    def receive(self) -> Result:
        """What became of the chunk sent last."""
        result: Result = self.connection.recv()
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
            connection.send(encode(pickle.load(stream), encode_chunk, folder))


def _exit_with(sentinel: int) -> None:
    """Exit when the parent process does: a worker that encodes would go on until its chunk is done."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
