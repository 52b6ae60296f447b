"""From chunks of documents or pairs to a finished folder of shards, in worker processes.

A run may be killed anywhere: the same command goes on with what the journal has and comes to the same bytes.
"""

import hashlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tqdm import tqdm

from config import CHUNK_BYTES, CHUNK_DOCUMENTS, Content, SourceConfig
from corpus import Position
from errors import Stopped, StopSignals, UserError
from files import find_files, fingerprint
from journal import Entry, Journal, refuse_other_settings
from shards import Dataset
from tokenizer import EncoderName, Tokenizer, prove_encoder

HASH_RANGE = 1 << 64
PROOF_TEXTS, PROOF_CHARACTERS = 1000, 2 << 20  # at most so much text on which the fast encoder is compared with SentencePiece


class Sized(Protocol):
    """A document or a pair."""

    @property
    def size(self) -> int:
        """In bytes of UTF-8."""


Item = TypeVar("Item", bound=Sized)


class Chunk(NamedTuple, Generic[Item]):
    """What one worker turns into one shard of each split."""

    number: int
    items: list[Item]
    size: int  # in bytes of text
    source: str  # where the chunk begins, for messages
    end: Position


class Work(Protocol[Item]):
    """Writes the shards of a chunk into a folder; runs in a worker process."""

    def __call__(self, chunk: Chunk[Item], folder: Path) -> Entry: ...


@dataclass(frozen=True)
class Recipe(Generic[Item]):
    """What a data folder is made of, and how: documents and pairs differ in this alone."""

    content: Content
    chunks: Iterator[Chunk[Item]]  # those that are left to do
    tokenizer: Tokenizer
    revision: str  # of the source, where it has one
    hashed: Callable[[Item], bytes | None]  # what decides on which side of the split an item falls; None: it cannot be used
    texts: Callable[[Item], list[str]]  # as they will be encoded
    work: Callable[[EncoderName, int], Work[Item]]  # with an encoder and the bound of the hashes of what is held out
    more: str  # what to do when too little is usable


def unused_flags(config: SourceConfig) -> tuple[str, ...]:
    """The flags of the other kind of source."""
    return ("dataset", "subset", "split") if config.input else ("input",)


def settings_of(config: SourceConfig, endings: tuple[str, ...]) -> dict[str, Any]:
    """What the output depends on. Files count by name and content, wherever they lie; a tokenizer by its hash, which the caller adds."""
    settings = asdict(config)
    for name in ("data_dir", "workers", "retries", *unused_flags(config)):
        del settings[name]
    if config.input:
        settings["input"] = [fingerprint(file) for file in find_files(config.input, endings)]
    return settings


def begin(folder: Path, settings: dict[str, Any]) -> Journal:
    """A folder to make, or to go on with where an earlier run of the same settings stopped."""
    journal = Journal(folder)
    if plan := journal.plan():
        refuse_other_settings(folder, "begun", plan["settings"], settings)
        print(f"going on with {folder}: {len(journal.entries)} chunks are done")
    return journal


def make(journal: Journal, config: SourceConfig, recipe: Recipe[Item], settings: dict[str, Any]) -> Dataset:
    """All the steps from chunks to a finished folder, or those that an earlier run has left to do."""
    first = next(recipe.chunks, None)
    if first is None and not journal.entries:
        raise UserError(f"no {recipe.content} in {', '.join(config.input) or config.dataset}")
    plan = journal.plan()
    if not plan:
        assert first is not None
        bound = held_out_below(config.val_share, [text for text in map(recipe.hashed, first.items) if text is not None])
        plan = {"settings": settings, "revision": recipe.revision, "held_out_below": bound}
        journal.write_plan(plan)
    if first is not None:
        encoder_name, notice = prove_encoder(recipe.tokenizer, _take(text for item in first.items for text in recipe.texts(item)))
        print(notice)
        work = recipe.work(encoder_name, plan["held_out_below"])
        rate = encode_chunks(journal, itertools.chain([first], recipe.chunks), work, config.workers, recipe.content)
        print(f"reversed, encoded and wrote {rate:.1f} MB of text a second with {config.workers} workers")
    tokenizer = recipe.tokenizer
    meta = {"content": recipe.content, "order": config.order, "vocab_size": tokenizer.vocab_size, "tokenizer_sha256": tokenizer.sha256}
    return journal.seal({**meta, "revision": plan["revision"], "settings": settings}, recipe.more)


def text_hash(text: bytes) -> int:
    """A number below HASH_RANGE that depends on the text alone, so that copies of a text fall on one side of the split."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def held_out_below(share: float, texts: list[bytes]) -> int:
    """The bound on the hashes of what is held out: the share, but never so low that a small corpus would have nothing held out."""
    return max(round(share * HASH_RANGE), min(map(text_hash, texts), default=0) + 1)


def _take(texts: Iterator[str]) -> list[str]:
    """Enough of the texts to compare encoders on."""
    taken, characters = [], 0
    for text in itertools.islice(texts, PROOF_TEXTS):
        taken.append(text)
        characters += len(text)
        if characters >= PROOF_CHARACTERS:
            break
    return taken


def read_chunks(
    rows: Iterator[tuple[list[Item], Position]], names: tuple[str, ...], index: int, start: Position, num_chunks: int
) -> Iterator[Chunk[Item]]:
    """The rows, the first of which stands at `start`, as chunks from number `index` up to number `num_chunks` or their end."""
    items: list[Item] = []
    count = size = 0
    end = start
    while index < num_chunks:
        row = next(rows, None)
        if row is not None:
            items += row[0]
            size += sum(item.size for item in row[0])
            count += 1
            end = row[1]
        if count == CHUNK_DOCUMENTS or size >= CHUNK_BYTES or (row is None and count):
            yield Chunk(index, items, size, f"{names[start.file]}, row {start.row + 1}", end)
            items, count, size, start = [], 0, 0, end
            index += 1
        if row is None:
            return


def encode_chunks(journal: Journal, chunks: Iterator[Chunk[Item]], work: Work[Item], workers: int, unit: str) -> float:
    """Run the work on every chunk that the journal does not have, in processes of their own; returns the MB/s of text."""
    context = multiprocessing.get_context("spawn")  # forking a process that has threads, as readers do, can hang
    waiting: dict[Future[Entry], Chunk[Item]] = {}
    documents = sum(shard.documents for entry in journal.entries.values() for rows in entry.shards.values() for shard in rows)
    with (
        StopSignals("stopping when the chunks in hand are written") as signals,
        tqdm(unit=f" {unit}", initial=documents, disable=None, smoothing=0.1) as progress,
        ProcessPoolExecutor(workers, context, _begin_worker, (work, journal.folder)) as executor,
    ):
        started, size = time.monotonic(), 0
        more = True
        trouble: UserError | None = None
        try:
            while (more and not signals.received) or waiting:
                # One chunk more than there are workers is read ahead, so that none of them waits for the source.
                while more and not signals.received and len(waiting) <= workers:
                    try:
                        chunk = next(chunks, None)
                    except UserError as error:  # first keep what is in hand
                        chunk, trouble = None, error
                    more = chunk is not None
                    if chunk is not None and chunk.number not in journal.entries:
                        waiting[executor.submit(_work, chunk)] = chunk
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    chunk = waiting.pop(future)
                    journal.add(chunk.number, _result(future, chunk, executor))
                    size += chunk.size
                    progress.update(len(chunk.items))
                    progress.set_postfix_str(f"{size / 1e6 / (time.monotonic() - started):.1f} MB/s")
        except BrokenProcessPool as error:
            if not signals.received:  # the signal may have gone to the whole process group
                raise UserError(
                    "a worker process was killed, perhaps for want of memory. What is done is kept: run again, with fewer --workers"
                ) from error
    if trouble:
        raise trouble
    if signals.received:
        raise Stopped(f"stopped; {len(journal.entries)} chunks are kept. The same command goes on", signals.received)
    return size / 1e6 / (time.monotonic() - started)


def _result(future: Future[Entry], chunk: Chunk[Item], executor: ProcessPoolExecutor) -> Entry:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        raise error
    executor.shutdown(wait=False, cancel_futures=True)
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        reason = f"{error.strerror}: {error.filename or 'a shard'}. What is done is kept: mend it and run the same command again"
    raise UserError(f"chunk {chunk.number}, which begins at {chunk.source}: {reason}") from error


def _begin_worker(work: Work[Any], folder: Path) -> None:
    global _assigned
    _assigned = work, folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process decides
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    """End this process when its parent does: a worker waiting for work would wait for ever after a SIGKILL."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _work(chunk: Chunk[Any]) -> Entry:
    work, folder = _assigned
    return work(chunk, folder)


_assigned: tuple[Work[Any], Path]  # of this worker process
