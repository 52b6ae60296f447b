"""Token shards on disk: writing them, and opening and verifying a finished data folder.

A shard is raw little-endian uint16 ids and nothing else; meta.json, written last, describes all shards of its folder.
"""

import contextlib
import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from config import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, Content, Order, Script
from formats.input_files import DOCUMENT_ENDINGS
from formats.token_stream import ID_DTYPE, TokenStream
from presets import command_for
from system.amounts import amount
from system.errors import BAD_FLAGS, UserError, first_line
from system.escapes import one_line
from system.files import naming, open_own, rename, write_json

FORMAT = 1
MAKERS: dict[Content, Script] = {"documents": "preprocess_xcoax.py", "pairs": "preprocess_instruct.py"}
USERS: dict[Content, Script] = {"documents": "train_xcoax.py", "pairs": "finetune_xcoax.py"}
Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
SKIPPED = "skipped: "  # prefix of the counts of what is not in the shards


@dataclass(frozen=True)
class Shard:
    """One .bin file, as described in meta.json."""

    name: str
    ids: int
    documents: int
    bytes: int  # of UTF-8 text, before it became ids
    sha256: str


class ShardWriter:
    """Writes a shard under a temporary name and renames it when it is complete; a shard without documents leaves no file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._temporary = folder / f"{name}.part"
        self._file = os.fdopen(open_own(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")
        self._hash = hashlib.sha256()
        self._ids = self._documents = self._bytes = 0

    def append(self, ids: NDArray[np.uint16], documents: int, text_bytes: int) -> None:
        data = ids.astype(ID_DTYPE, copy=False).tobytes()
        with naming(self._path):
            self._file.write(data)
        self._hash.update(data)
        self._ids += len(ids)
        self._documents += documents
        self._bytes += text_bytes

    def finish(self) -> list[Shard]:
        """Make the shard durable and describe it."""
        with naming(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        if not self._documents:
            self._temporary.unlink()
            return []
        rename(self._temporary, self._path)
        return [Shard(self._path.name, self._ids, self._documents, self._bytes, self._hash.hexdigest())]

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # closing writes again what a full disk has refused
            self._file.close()
        with contextlib.suppress(*(OSError,) if error else ()):  # the first error tells more than that the disk cannot be tidied either
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
        """The contents of the folder, on one line."""
        shards = self.shards("train") + self.shards("val")
        ids, size = sum(shard.ids for shard in shards), sum(shard.bytes for shard in shards)
        held_out = sum(shard.documents for shard in self.shards("val"))
        documents = sum(shard.documents for shard in shards)
        found = documents + sum(count for what, count in self.meta["counts"].items() if what.startswith(SKIPPED))
        counts = "".join(
            f", {count:,} {what} ({count / (found if what.startswith(SKIPPED) else documents):.1%})"
            for what, count in self.meta["counts"].items()
        )
        items = amount(documents, self.content.removesuffix("s"))
        return f"{items} ({held_out:,} held out), {ids:,} tokens, {size / ids:.2f} bytes per token, {self.order}{counts}"

    def shards(self, split: Split) -> list[Shard]:
        return [Shard(**shard) for shard in self.meta["shards"][split]]

    @property
    def fingerprint(self) -> str:
        """Identifies the dataset by the hashes of its shards."""
        return hashlib.sha256(json.dumps(self.meta["shards"]).encode()).hexdigest()[:12]

    def stream(self, split: Split) -> TokenStream:
        shards = self.shards(split)
        return TokenStream([self.folder / shard.name for shard in shards], [shard.ids for shard in shards], self.vocab_size)

    def verify(self) -> None:
        """Compare every file with its hash in meta.json."""
        files = [(shard.name, shard.sha256) for shard in (*self.shards("train"), *self.shards("val"))]
        for name, sha256 in [*files, ("tokenizer.model", self.meta["tokenizer_sha256"])]:
            with (self.folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise damaged_dataset(self.folder, f"{self.folder / name} is damaged: its hash differs from meta.json", self.content)


def seal(folder: Path, meta: dict[str, Any], shards: dict[Split, list[Shard]]) -> Dataset:
    """Write meta.json, which makes the folder a finished one."""
    rows = {split: [asdict(shard) for shard in shards[split]] for split in shards}
    meta = {"format": FORMAT, **meta, "shards": rows}
    write_json(folder / "meta.json", meta)
    return Dataset(folder, meta)


def open_dataset(folder: Path, content: Content | None = "documents", check_hashes: bool = False) -> Dataset:
    """Open a finished folder with this content (None: any). Lengths are always checked, hashes on request."""
    expected, content = content, content or "documents"
    file = folder / "meta.json"
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise damaged_dataset(folder, f"{folder} has format {one_line(repr(meta['format']), 80)}, not {FORMAT}", content)
        _check_meta(meta)
        dataset = Dataset(folder, meta)
        shards = dataset.shards("train") + dataset.shards("val")
    except OSError as error:
        unfinished = " (unfinished: run the same command again to resume)" if (folder / "unfinished").is_dir() else ""
        command = command_for(MAKERS[content], folder)
        if not unfinished and any(file.name.lower().endswith(DOCUMENT_ENDINGS) for file in folder.glob("*")):
            command = f"python {MAKERS[content]} --input {folder} --data-dir ... and name that folder here"
        raise UserError(f"no finished dataset in {folder}{unfinished}. Run: {command}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged_dataset(folder, f"{file} is damaged ({first_line(error)})", content) from error
    if expected and dataset.content != expected:
        raise UserError(
            f"{folder} holds {dataset.content}, made by {MAKERS[dataset.content]} for {USERS[dataset.content]}; "
            f"expected were {content}, made by {MAKERS[content]}. Use another --data-dir",
            BAD_FLAGS,
        )
    for shard in shards:
        path = folder / shard.name
        length = path.stat().st_size if path.is_file() else None
        if length != shard.ids * ID_DTYPE.itemsize:
            found = "is missing" if length is None else f"has {length:,} bytes instead of {shard.ids * ID_DTYPE.itemsize:,}"
            raise damaged_dataset(folder, f"{path} {found}", content)
    if check_hashes:
        dataset.verify()
    return dataset


def _check_meta(meta: dict[str, Any]) -> None:
    """Refuse what no finished folder of ours has."""
    kinds = {"order": str, "vocab_size": int, "tokenizer_sha256": str, "settings": dict, "counts": dict, "shards": dict}
    for name, kind in kinds.items():
        if not isinstance(meta[name], kind):
            raise TypeError(f"{name} is not of type {kind.__name__}")
    if meta["order"] not in get_args(Order) or meta.get("content", "documents") not in get_args(Content):
        raise ValueError("unknown order or content")
    if meta.get("content") == "pairs" and not isinstance(meta["settings"]["block_size"], int):
        raise TypeError("the context of the pairs is not a number")
    if not MIN_VOCAB_SIZE <= meta["vocab_size"] <= MAX_VOCAB_SIZE or not all(isinstance(count, int) for count in meta["counts"].values()):
        raise ValueError("a number is impossible")
    _check_recorded(meta)
    for split in SPLITS:
        shards = [Shard(**shard) for shard in meta["shards"][split]]
        if not shards:
            raise ValueError(f"no {split} shards")
        for shard in shards:
            check_shard(shard, split)


def _check_recorded(meta: dict[str, Any]) -> None:
    """Refuse what a later run could not use: settings, and where it would go on. Earlier versions recorded less of it."""
    kinds = {"revision": str, "held_out_below": int, "split_parts": bool, "end": list, "chunks": int}
    for name, kind in kinds.items():
        if name in meta and not isinstance(meta[name], kind):
            raise TypeError(f"{name} is not of type {kind.__name__}")
    check_settings(meta["settings"])
    if "end" in meta:
        numbers = [*meta["end"], meta["held_out_below"]]
        if len(numbers) != 3 or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("a number is impossible")
        if "revision" not in meta or not 0 < meta["chunks"] <= meta["settings"]["num_chunks"]:
            raise ValueError("the place where more chunks would begin is impossible")


def check_settings(settings: dict[str, Any]) -> None:
    """Raise a TypeError for values that no settings of ours have: they are flags, so each is plain, or a list of plain ones."""
    for name, value in settings.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, list | dict):
                raise TypeError(f"the setting {name[:40]} is not a plain value")


def check_shard(shard: Shard, split: Split) -> None:
    """Raise a ValueError or TypeError for a description that no shard of ours has."""
    if not re.fullmatch(rf"{split}_\d{{5,}}\.bin", shard.name):
        raise ValueError(f"{shard.name[:40]!r} is not the name of a {split} shard")
    if not all(isinstance(number, int) and 0 < number < 1 << 62 for number in (shard.ids, shard.documents, shard.bytes)):
        raise ValueError(f"{shard.name}: a number is impossible")
    if not isinstance(shard.sha256, str):
        raise TypeError(f"{shard.name}: its hash is not text")


def damaged_dataset(folder: Path, what: str, content: Content) -> UserError:
    """The error for a damaged folder, with the command that makes it again."""
    return UserError(f"{what}. Delete the folder and run: {command_for(MAKERS[content], folder)}")
