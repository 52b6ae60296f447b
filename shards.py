"""Token shards on disk: write, seal, verify, map, draw batches.

A shard is raw little-endian uint16 ids and nothing else; meta.json, written last, describes every one in its folder.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from config import IGNORE, Content, Script
from disk import write_json
from errors import BAD_FLAGS, UserError
from presets import command_for
from text import Order

FORMAT = 1
MAKERS: dict[Content, Script] = {"documents": "preprocess_xcoax.py", "pairs": "preprocess_instruct.py"}
USERS: dict[Content, Script] = {"documents": "train_xcoax.py", "pairs": "finetune_xcoax.py"}
ID = np.dtype("<u2")
Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
SKIPPED = "skipped: "  # how the counts of what is not in the shards begin
SCANNED_IDS = 1 << 22  # ids of a stream that are looked at together
PADDING = -1  # the example to which ids belong that only fill a row


@dataclass(frozen=True)
class Shard:
    """What meta.json says of one .bin file."""

    name: str
    ids: int
    documents: int
    bytes: int  # of UTF-8 text, before it became ids
    sha256: str


class ShardWriter:
    """Writes a shard under a temporary name and renames it when it is whole; a shard of no documents leaves no file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._temporary = folder / f"{name}.part"
        self._file = self._temporary.open("wb")
        self._hash = hashlib.sha256()
        self._ids = self._documents = self._bytes = 0

    def append(self, ids: NDArray[np.uint16], documents: int, text_bytes: int) -> None:
        data = ids.astype(ID, copy=False).tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._ids += len(ids)
        self._documents += documents
        self._bytes += text_bytes

    def finish(self) -> list[Shard]:
        """Make the shard durable and describe it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if not self._documents:
            self._temporary.unlink()
            return []
        self._temporary.replace(self._path)
        return [Shard(self._path.name, self._ids, self._documents, self._bytes, self._hash.hexdigest())]

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Dataset:
    """A finished folder of shards."""

    folder: Path
    meta: dict[str, Any]

    @property
    def order(self) -> Order:
        order: Order = self.meta["order"]
        return order

    @property
    def vocab_size(self) -> int:
        return int(self.meta["vocab_size"])

    @property
    def content(self) -> Content:
        content: Content = self.meta.get("content", "documents")
        return content

    def summary(self) -> str:
        """What the folder holds, on one line."""
        shards = self.shards("train") + self.shards("val")
        ids, size = sum(shard.ids for shard in shards), sum(shard.bytes for shard in shards)
        held_out = sum(shard.documents for shard in self.shards("val"))
        documents = sum(shard.documents for shard in shards)
        found = documents + sum(count for what, count in self.meta["counts"].items() if what.startswith(SKIPPED))
        counts = "".join(
            f", {count:,} {what} ({count / (found if what.startswith(SKIPPED) else documents):.1%})"
            for what, count in self.meta["counts"].items()
        )
        return (
            f"{documents:,} {self.content} ({held_out:,} held out), {ids:,} tokens, {size / ids:.2f} bytes per token, {self.order}{counts}"
        )

    def shards(self, split: Split) -> list[Shard]:
        return [Shard(**shard) for shard in self.meta["shards"][split]]

    @property
    def fingerprint(self) -> str:
        """What tells it from every other dataset, by the hashes of its shards."""
        return hashlib.sha256(json.dumps(self.meta["shards"]).encode()).hexdigest()[:12]

    def stream(self, split: Split) -> "Stream":
        return Stream([self.folder / shard.name for shard in self.shards(split)], [shard.ids for shard in self.shards(split)])

    def verify(self) -> None:
        """Compare every file with the hash that meta.json has of it."""
        files = [(shard.name, shard.sha256) for shard in (*self.shards("train"), *self.shards("val"))]
        for name, sha256 in [*files, ("tokenizer.model", self.meta["tokenizer_sha256"])]:
            with (self.folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise _damaged(self.folder, f"{self.folder / name} is damaged: its hash is not the one in meta.json", self.content)


def seal(folder: Path, meta: dict[str, Any], shards: dict[Split, list[Shard]]) -> Dataset:
    """Write meta.json by rename: from here on the folder is finished."""
    rows = {split: [asdict(shard) for shard in shards[split]] for split in shards}
    meta = {"format": FORMAT, **meta, "shards": rows}
    write_json(folder / "meta.json", meta)
    return Dataset(folder, meta)


def open_dataset(folder: Path, content: Content | None = "documents", check_hashes: bool = False) -> Dataset:
    """Open a finished folder that holds what is asked for, or whatever it holds; lengths are checked always, hashes on request."""
    expected, content = content, content or "documents"
    file = folder / "meta.json"
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise _damaged(folder, f"{folder} has format {meta['format']}, not {FORMAT}", content)
        dataset = Dataset(folder, meta)
        shards = dataset.shards("train") + dataset.shards("val")
    except OSError as error:
        begun = " (it was begun: the same command goes on with it)" if (folder / "unfinished").is_dir() else ""
        raise UserError(f"no finished dataset in {folder}{begun}. Run: {command_for(MAKERS[content], folder)}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, f"{file} is damaged", content) from error
    if expected and dataset.content != expected:
        raise UserError(
            f"{folder} holds {dataset.content}, made by {MAKERS[dataset.content]} for {USERS[dataset.content]}; "
            f"here {content} are expected, which {MAKERS[content]} makes. Give another --data-dir",
            BAD_FLAGS,
        )
    for shard in shards:
        path = folder / shard.name
        length = path.stat().st_size if path.is_file() else None
        if length != shard.ids * ID.itemsize:
            found = "is missing" if length is None else f"has {length:,} bytes instead of {shard.ids * ID.itemsize:,}"
            raise _damaged(folder, f"{path} {found}", content)
    if check_hashes:
        dataset.verify()
    return dataset


def _damaged(folder: Path, what: str, content: Content) -> UserError:
    return UserError(f"{what}. Delete the folder and run: {command_for(MAKERS[content], folder)}")


class Stream:
    """The shards of a split, read as one long row of ids."""

    def __init__(self, paths: Sequence[Path], lengths: Sequence[int]) -> None:
        self._paths = list(paths)
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """Ids from `start` on: `count` of them, or fewer at the end.

        Each read maps its own window and lets go of it: pages that stay mapped would count as this process's memory.
        """
        end = min(start + count, len(self))
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < end:
            length = min(end, int(self._starts[shard + 1])) - start
            offset = (start - int(self._starts[shard])) * ID.itemsize
            parts.append(np.array(np.memmap(self._paths[shard], ID, "r", offset, (length,))))
            start += length
            shard += 1
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


class Documents:
    """The documents, or pairs, of a split: each its boundary and the ids behind it."""

    def __init__(self, dataset: Dataset, split: Split, boundary: int) -> None:
        self._stream = stream = dataset.stream(split)
        found, largest = [], 0
        for start in range(0, len(stream), SCANNED_IDS):
            ids = stream.read(start, SCANNED_IDS)
            found.append(start + np.flatnonzero(ids == boundary))
            largest = max(largest, int(ids.max()))
        self.starts = np.concatenate([*found, [len(stream)]])
        documents = sum(shard.documents for shard in dataset.shards(split))
        if len(self) != documents or self.starts[0] != 0 or largest >= dataset.vocab_size:
            what = f"the shards in {dataset.folder} are damaged: they hold {len(self):,} {dataset.content}, meta.json has {documents:,}"
            raise _damaged(dataset.folder, what, dataset.content)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def read(self, index: int) -> NDArray[np.int64]:
        """The ids of document number .., its boundary first."""
        return self._stream.read(int(self.starts[index]), int(self.starts[index + 1] - self.starts[index]))


@dataclass(frozen=True)
class Rows:
    """Training or validation examples: each id of `inputs` and the id that comes after it."""

    inputs: NDArray[np.int64]  # (B, T)
    targets: NDArray[np.int64]  # (B, T), IGNORE where there is nothing to learn
    examples: NDArray[np.int64] | None = None  # (B, T) which of the row's examples each id belongs to, PADDING for none

    def __getitem__(self, rows: slice) -> "Rows":
        return Rows(self.inputs[rows], self.targets[rows], None if self.examples is None else self.examples[rows])

    @property
    def tokens(self) -> int:
        """Ids that a model reads to learn from, learnt themselves or not."""
        return int((self.targets != IGNORE).sum() if self.examples is None else (self.examples != PADDING).sum())


class Windows:
    """A stream cut into windows of `block_size` targets, so that every id but the first is a target of exactly one."""

    def __init__(self, stream: Stream, block_size: int, filler: int) -> None:
        self._stream = stream
        self._block_size = block_size
        self._filler = filler  # an id to stand in the last, shorter window; its targets are ignored

    def __len__(self) -> int:
        return math.ceil((len(self._stream) - 1) / self._block_size)

    def read(self, indices: Sequence[int] | NDArray[np.int64], height: int = 0) -> Rows:
        """The windows named, filled up to `height` rows with ones that count for nothing."""
        shape = max(len(indices), height), self._block_size
        inputs = np.full(shape, self._filler, np.int64)
        targets = np.full(shape, IGNORE, np.int64)
        for row, index in enumerate(indices):
            ids = self._stream.read(int(index) * self._block_size, self._block_size + 1)
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = ids[1:]
        return Rows(inputs, targets)

    def draw(self, seed: int, first_row: int, rows: int) -> Rows:
        """Rows number `first_row`, `first_row + 1`, ... of an endless order of the windows."""
        return self.read(drawn(len(self), seed, first_row, rows))

    def spread(self, limit: int) -> NDArray[np.int64]:
        """At most `limit` windows, evenly spaced over the stream and always the same."""
        return spread(len(self), limit)


def drawn(count: int, seed: int, first_row: int, rows: int) -> list[int]:
    """Which of `count` things come as number `first_row`, `first_row + 1`, ... when every epoch is a new permutation of them.

    A function of its arguments alone: a run that resumes needs no state of a loader.
    """
    return [int(_permutation(count, seed, row // count)[row % count]) for row in range(first_row, first_row + rows)]


def spread(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of `count` things, evenly spaced and always the same."""
    chosen = min(limit, count)
    return np.arange(chosen, dtype=np.int64) * count // max(chosen, 1)


@lru_cache(maxsize=2)  # a step can hold the end of one epoch and the beginning of the next
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    return np.random.default_rng([seed, epoch]).permutation(np.arange(count, dtype=np.uint32))
