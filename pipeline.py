"""From chunks of documents to a finished folder of shards: worker processes, and a journal that makes every run resume.

While a folder is being made, `unfinished/` holds plan.json (what the run was asked for) and a journal entry for each
chunk whose shards are whole. Sealing gathers the entries into meta.json. Every step ends in a rename, so a run may be
killed anywhere: the same command goes on with what is there and comes to the same bytes.
"""

import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from config import CHUNK_BYTES, CHUNK_DOCUMENTS, differences
from corpus import Corpus, Position
from disk import write_json
from errors import BAD_FLAGS, Stopped, StopSignals, UserError
from shards import Dataset, Shard, Split, open_dataset, seal


class Chunk(NamedTuple):
    """The documents that one worker turns into one shard of each split."""

    number: int
    documents: list[bytes | None]
    parts: int  # how many of them go on with the one before
    source: str  # where the chunk begins, for messages
    end: Position


@dataclass(frozen=True)
class Entry:
    """What the journal keeps of a finished chunk."""

    shards: dict[Split, list[Shard]]
    counts: dict[str, int]  # of documents cut or skipped
    end: Position


class Work(Protocol):
    """Writes the shards of a chunk into a folder; runs in a worker process."""

    def __call__(self, chunk: Chunk, folder: Path) -> Entry: ...


class Journal:
    """A folder that is being made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unfinished = folder / "unfinished"
        self.unfinished.mkdir(exist_ok=True)
        self.entries: dict[int, Entry] = {}
        for path in self.unfinished.glob("chunk_*.json"):
            row = json.loads(path.read_text(encoding="utf-8"))
            shards: dict[Split, list[Shard]] = {split: [Shard(**shard) for shard in shards] for split, shards in row["shards"].items()}
            self.entries[int(path.stem.removeprefix("chunk_"))] = Entry(shards, row["counts"], Position(*row["end"]))

    def plan(self) -> dict[str, Any] | None:
        """What an earlier run in this folder wrote before its first chunk."""
        path = self.unfinished / "plan.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def write_plan(self, plan: dict[str, Any]) -> None:
        write_json(self.unfinished / "plan.json", plan)

    def add(self, index: int, entry: Entry) -> None:
        write_json(self.unfinished / f"chunk_{index:05d}.json", {**asdict(entry), "end": list(entry.end)})
        self.entries[index] = entry

    def resume_point(self) -> tuple[int, Position]:
        """The first chunk that is not there, and where it begins."""
        index = next(index for index in range(len(self.entries) + 1) if index not in self.entries)
        return index, self.entries[index - 1].end if index else Position(0, 0)

    def seal(self, meta: dict[str, Any]) -> Dataset:
        """Turn the entries into meta.json and leave nothing else behind."""
        entries = [self.entries[index] for index in sorted(self.entries)]
        counts = Counter[str]()
        for entry in entries:
            counts.update(entry.counts)
        shards: dict[Split, list[Shard]] = {"train": [], "val": []}
        for split, rows in shards.items():
            rows += [shard for entry in entries for shard in entry.shards[split]]
        for split, what in (("train", "to train on"), ("val", "held out for validation")):
            if not shards[split]:
                total = sum(shard.documents for rows in shards.values() for shard in rows)
                skipped = ", ".join(f"{count} {what}" for what, count in counts.items()) or "none skipped"
                raise UserError(
                    f"{total} usable documents ({skipped}), none of them {what}. "
                    "Give more text, or cut long documents into more with a smaller --max-document-bytes"
                )
        dataset = seal(self.folder, {**meta, "counts": dict(sorted(counts.items()))}, shards)
        shutil.rmtree(self.unfinished)
        return dataset


def finished(folder: Path, settings: dict[str, Any]) -> Dataset | None:
    """The dataset, if this folder holds one made with these settings; one made with others is refused."""
    if not (folder / "meta.json").is_file():
        return None
    dataset = open_dataset(folder)
    refuse_other_settings(folder, dataset.meta["settings"], settings)
    shutil.rmtree(folder / "unfinished", ignore_errors=True)  # a run that was killed between sealing and cleaning
    return dataset


def refuse_other_settings(folder: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Stop if a folder was begun or finished with other settings, and say which."""
    changes = differences(there, wanted)
    if changes:
        raise UserError(
            f"{folder} was made with other settings: {'; '.join(changes)}. Give the same, or another --data-dir, or delete the folder",
            BAD_FLAGS,
        )


def read_chunks(corpus: Corpus, index: int, start: Position, num_chunks: int) -> Iterator[Chunk]:
    """The chunks from `index`, which begins at `start`, up to number `num_chunks` or the end of the corpus."""
    documents: list[bytes | None] = []
    parts = rows = size = 0
    rows_left = corpus.read(start)
    end = start
    while index < num_chunks:
        row = next(rows_left, None)
        if row is not None:
            documents += [document.text for document in row[0]]
            parts += sum(document.continues for document in row[0])
            size += sum(len(document.text or b"") for document in row[0])
            rows += 1
            end = row[1]
        if rows == CHUNK_DOCUMENTS or size >= CHUNK_BYTES or (row is None and rows):
            yield Chunk(index, documents, parts, f"{corpus.names[start.file]}, row {start.row + 1}", end)
            documents, parts, rows, size, start = [], 0, 0, 0, end
            index += 1
        if row is None:
            return


def encode_chunks(journal: Journal, chunks: Iterator[Chunk], work: Work, workers: int) -> float:
    """Run the work on every chunk that the journal does not have, in processes of their own; returns the MB/s of text."""
    context = multiprocessing.get_context("spawn")  # forking a process that has threads, as readers do, can hang
    waiting: dict[Future[Entry], Chunk] = {}
    documents = sum(shard.documents for entry in journal.entries.values() for rows in entry.shards.values() for shard in rows)
    with (
        StopSignals("stopping when the chunks in hand are written") as signals,
        tqdm(unit=" documents", initial=documents, disable=None, smoothing=0.1) as progress,
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
                    size += sum(len(document or b"") for document in chunk.documents)
                    progress.update(len(chunk.documents))
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


def _result(future: Future[Entry], chunk: Chunk, executor: ProcessPoolExecutor) -> Entry:
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


def _begin_worker(work: Work, folder: Path) -> None:
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


def _work(chunk: Chunk) -> Entry:
    work, folder = _assigned
    return work(chunk, folder)


_assigned: tuple[Work, Path]  # of this worker process
