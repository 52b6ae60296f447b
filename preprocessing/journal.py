"""Owns the unfinished state of a data folder, from which a killed run resumes.

While a run is unfinished, `unfinished/` holds plan.json (the settings of the run) and one record for each chunk whose
shards are complete. Sealing gathers the records into meta.json. Every step ends in a rename.
"""

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from config import Content
from formats.shards import SPLITS, Dataset, Shard, Split, check_settings, check_shard, open_dataset, seal
from preprocessing.sources import Position
from system.encodings import UTF8
from system.errors import BAD_FLAGS, UserError, first_line
from system.files import write_json
from system.settings import changed_settings

# Settings that are recorded only where they differ from this, so that a folder of an earlier version is as one of today.
OPTIONAL: dict[str, Any] = {"encoding": UTF8, "skip_bad_rows": False, "instruction_field": "", "response_field": "", "input_field": ""}
ADDED: dict[str, Any] = {"clean": "no", **OPTIONAL}  # settings that a folder may lack, and what was done then


@dataclass(frozen=True)
class ChunkRecord:
    """What the journal keeps of a finished chunk."""

    shards: dict[Split, list[Shard]]
    counts: dict[str, int]  # what was cut or skipped, and how many
    end: Position

    @property
    def documents(self) -> int:
        """In all shards."""
        return sum(shard.documents for shards in self.shards.values() for shard in shards)

    @property
    def bytes(self) -> int:
        """Of the text of all shards."""
        return sum(shard.bytes for shards in self.shards.values() for shard in shards)


class Journal:
    """The records of an unfinished data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unfinished = folder / "unfinished"
        self.unfinished.mkdir(exist_ok=True)
        self.records: dict[int, ChunkRecord] = {}
        for path in self.unfinished.glob("chunk_*.json"):
            with _refusing_damage(path):
                row = json.loads(path.read_text(encoding="utf-8"))
                shards: dict[Split, list[Shard]] = {split: [Shard(**shard) for shard in row["shards"][split]] for split in SPLITS}
                file, number = map(int, row["end"])
                counts = {str(what): int(count) for what, count in row["counts"].items()}
                for split in SPLITS:
                    for shard in shards[split]:
                        check_shard(shard, split)
                if min(file, number, *counts.values()) < 0:
                    raise ValueError("a number is negative")
                self.records[int(path.stem.removeprefix("chunk_"))] = ChunkRecord(shards, counts, Position(file, number))

    def plan(self) -> dict[str, Any] | None:
        """The plan that an earlier run wrote before its first chunk, if there is one."""
        path = self.unfinished / "plan.json"
        if not path.is_file():
            return None
        with _refusing_damage(path):
            plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            kinds = {"settings": dict, "revision": str, "held_out_below": int}
            if not all(isinstance(plan[name], kind) for name, kind in kinds.items()):
                raise TypeError("a value of the wrong type")
            check_settings(plan["settings"])
        return plan

    @property
    def revision(self) -> str:
        """The commit of the hub data set that an earlier run started with; empty if there was none."""
        plan = self.plan()
        return plan["revision"] if plan else ""

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Fix what every chunk of the run depends on."""
        write_json(self.unfinished / "plan.json", plan)

    def reopen(self, settings: dict[str, Any]) -> None:
        """Record the chunks of the finished folder again, to add others. Its meta.json stays until they are there."""
        dataset = open_dataset(self.folder, None)
        meta = dataset.meta
        end = Position(*meta["end"])
        for number in range(meta["chunks"]):
            shards: dict[Split, list[Shard]] = {
                split: [shard for shard in dataset.shards(split) if shard.name == f"{split}_{number:05d}.bin"] for split in SPLITS
            }
            self.add(number, ChunkRecord(shards, meta["counts"] if number == 0 else {}, end))
        kept: dict[str, Any] = {name: meta[name] for name in ("held_out_below", "split_parts") if name in meta}
        self.write_plan({"settings": settings, "revision": meta["revision"], **kept})  # last: a run that is killed before it starts over

    def add(self, number: int, record: ChunkRecord) -> None:
        """Record a chunk whose shards are complete."""
        write_json(self.unfinished / f"chunk_{number:05d}.json", {**asdict(record), "end": list(record.end)})
        self.records[number] = record

    def resume_point(self) -> tuple[int, Position]:
        """The number of the first chunk without a record, and the position where it begins."""
        number = next(number for number in range(len(self.records) + 1) if number not in self.records)
        return number, self.records[number - 1].end if number else Position(0, 0)

    def seal(self, meta: dict[str, Any], advice: str) -> Dataset:
        """Gather the records into meta.json and remove them; `advice` says what to do if a split is empty."""
        records = [self.records[number] for number in sorted(self.records)]
        counts = Counter[str]()
        for record in records:
            counts.update(record.counts)
        purposes: dict[Split, str] = {"train": "to train on", "val": "held out for validation"}
        shards = {split: [shard for record in records for shard in record.shards[split]] for split in purposes}
        for split, purpose in purposes.items():
            if not shards[split]:
                total = sum(shard.documents for found in shards.values() for shard in found)
                skipped = ", ".join(f"{count} {what}" for what, count in counts.items()) or "none skipped"
                self._remove()  # the next run has other text or other flags, so it cannot resume from this
                share = " Or give a larger --val-share" if split == "val" else ""
                raise UserError(f"usable {meta['content']}: {total} ({skipped}), none of them {purpose}. {advice}{share}")
        extension = {"chunks": len(records), "end": list(records[-1].end)}  # where a run with more chunks goes on
        dataset = seal(self.folder, {**meta, **extension, "counts": dict(sorted(counts.items()))}, shards)
        self._remove()
        return dataset

    def _remove(self) -> None:
        """Remove the records, and the plan after them: without it, records are those of an extension that has just begun."""
        for path in sorted(self.unfinished.iterdir()):
            path.unlink()
        self.unfinished.rmdir()


@contextlib.contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}). Delete {path.parent} to start over") from error


def open_finished(folder: Path, content: Content, settings: dict[str, Any]) -> Dataset | None:
    """The dataset in this folder, if it is finished. A dataset made with different settings is refused, unless it can be extended."""
    if not (folder / "meta.json").is_file():
        return None
    dataset = open_dataset(folder, content)
    if _is_extended(dataset.meta, settings):
        return None
    require_same_settings(folder, "made", dataset.meta["settings"], settings)
    if not _is_being_extended(folder, dataset.meta["settings"]):
        shutil.rmtree(folder / "unfinished", ignore_errors=True)  # of a run that was killed between writing meta.json and removing it
    return dataset


def _is_being_extended(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether the journal in a finished folder is that of a run, or of an interrupted one, that adds chunks."""
    unfinished = folder / "unfinished"
    try:
        plan: dict[str, Any] = json.loads((unfinished / "plan.json").read_text(encoding="utf-8"))
        return bool(plan["settings"] != settings)
    except FileNotFoundError:
        return any(unfinished.glob("chunk_*.json"))  # it has not come to its plan yet
    except (ValueError, TypeError, KeyError):
        return False


def _is_extended(meta: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a run asks only for more chunks than a finished folder has. Earlier versions did not record where to go on."""
    return (
        "end" in meta
        and settings["num_chunks"] > meta["settings"]["num_chunks"]
        and not changed_settings(ADDED | meta["settings"] | {"num_chunks": settings["num_chunks"]}, ADDED | settings)
    )


def require_same_settings(folder: Path, what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a folder that was started or made with different settings, and name them."""
    changes = changed_settings(ADDED | before, ADDED | now)
    if changes:
        raise UserError(
            f"{folder} was {what} with different settings: {'; '.join(changes)}. "
            "Use the same settings, give another --data-dir, or delete the folder",
            BAD_FLAGS,
        )
