"""A data folder that is being made, so that a run that is killed goes on where it stopped.

While a folder is being made, `unfinished/` holds plan.json (what the run was asked for) and a journal entry for each
chunk whose shards are whole. Sealing gathers the entries into meta.json. Every step ends in a rename.
"""

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from config import Content
from corpus import Position
from disk import write_json
from errors import BAD_FLAGS, UserError
from flags import differences
from shards import Dataset, Shard, Split, open_dataset, seal


@dataclass(frozen=True)
class Entry:
    """What the journal keeps of a finished chunk."""

    shards: dict[Split, list[Shard]]
    counts: dict[str, int]  # of what was cut or skipped
    end: Position


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

    @property
    def revision(self) -> str:
        """The commit of a data set on the hub that an earlier run began with."""
        plan = self.plan()
        return plan["revision"] if plan else ""

    def write_plan(self, plan: dict[str, Any]) -> None:
        write_json(self.unfinished / "plan.json", plan)

    def add(self, index: int, entry: Entry) -> None:
        write_json(self.unfinished / f"chunk_{index:05d}.json", {**asdict(entry), "end": list(entry.end)})
        self.entries[index] = entry

    def resume_point(self) -> tuple[int, Position]:
        """The first chunk that is not there, and where it begins."""
        index = next(index for index in range(len(self.entries) + 1) if index not in self.entries)
        return index, self.entries[index - 1].end if index else Position(0, 0)

    def seal(self, meta: dict[str, Any], more: str) -> Dataset:
        """Turn the entries into meta.json and leave nothing else behind; `more` says what to do when there is too little."""
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
                shutil.rmtree(self.unfinished)  # nothing that is worth going on with
                share = " Or give a larger --val-share" if split == "val" else ""
                raise UserError(f"usable {meta['content']}: {total} ({skipped}), none of them {what}. {more}{share}")
        dataset = seal(self.folder, {**meta, "counts": dict(sorted(counts.items()))}, shards)
        shutil.rmtree(self.unfinished)
        return dataset


def finished(folder: Path, content: Content, settings: dict[str, Any]) -> Dataset | None:
    """The dataset, if this folder holds one made with these settings; one made with others is refused."""
    if not (folder / "meta.json").is_file():
        return None
    dataset = open_dataset(folder, content)
    refuse_other_settings(folder, "made", dataset.meta["settings"], settings)
    shutil.rmtree(folder / "unfinished", ignore_errors=True)  # a run that was killed between sealing and cleaning
    return dataset


def refuse_other_settings(folder: Path, what: str, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Stop if a folder was begun or finished with other settings, and say which."""
    changes = differences(there, wanted)
    if changes:
        raise UserError(
            f"{folder} was {what} with other settings: {'; '.join(changes)}. Give the same, or another --data-dir, or delete the folder",
            BAD_FLAGS,
        )
