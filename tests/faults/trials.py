"""Counts the faults that a campaign tried and how they ended, and makes the table of all campaigns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

ROW = "faults"  # the name under which a test reports its row
SHOWN = 5  # of the trials that went wrong, in the message of the failing test


class Outcome(IntEnum):
    """How a trial ended, if it was not lost."""

    RIGHT = 0
    REFUSED = 1
    CHANGED = 2  # other contents were read, as they are in the file: it has no checksum, so nothing can know


class Row(NamedTuple):
    """What became of one kind of fault. Whatever is not refused and was neither right nor read as changed is lost."""

    kind: str
    tried: int
    refused: int  # with one line that says what is wrong
    right: int  # as if nothing had happened
    note: str = ""
    changed: int = 0  # as it is in the damaged file, which has no checksum

    @property
    def lost(self) -> int:
        return self.tried - self.refused - self.right - self.changed


@dataclass
class Trial:
    """One fault."""

    refused: bool = False
    changed: bool = False


@dataclass
class Trials:
    """The faults of one kind."""

    kind: str
    note: str = ""
    tried: int = 0
    refused: int = 0
    right: int = 0
    changed: int = 0
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def one(self, what: object) -> Iterator[Trial]:
        """Count what happens inside as one trial: an exception means that it went wrong; the campaign goes on."""
        trial = Trial()
        self.tried += 1
        try:
            yield trial
        except Exception as error:  # noqa: BLE001 -- whatever it is, it must not happen
            self.wrong.append(f"{what}: {type(error).__name__}: {error}")
        else:
            self.refused += trial.refused
            self.changed += trial.changed and not trial.refused
            self.right += not (trial.changed or trial.refused)

    def check(self) -> None:
        """Fail if anything went wrong, or if nothing was tried."""
        assert self.tried, f"{self.kind}: nothing was tried"
        assert not self.wrong, "\n".join([f"{self.kind}: {len(self.wrong)} of {self.tried} went wrong", *self.wrong[:SHOWN]])

    @property
    def row(self) -> Row:
        return Row(self.kind, self.tried, self.refused, self.right, self.note, self.changed)


def table(rows: Sequence[Row]) -> list[str]:
    """All kinds of fault in Markdown, those of one name together, with their totals."""
    merged: dict[str, Row] = {}
    for row in rows:
        before = merged.get(row.kind, Row(row.kind, 0, 0, 0))
        notes = "; ".join(dict.fromkeys(note for note in (before.note, row.note) if note))
        merged[row.kind] = _sum(row.kind, [before, row], notes)
    ordered = [merged[kind] for kind in sorted(merged)]
    ordered.append(_sum("**all**", ordered))
    lines = ["| fault | tried | refused in one line | ended right | read as changed | lost | |", "|---|---:|---:|---:|---:|---:|---|"]
    return lines + [
        f"| {row.kind} | {row.tried:,} | {row.refused:,} | {row.right:,} | {row.changed:,} | {row.lost:,} | {row.note} |" for row in ordered
    ]


def _sum(kind: str, rows: Sequence[Row], note: str = "") -> Row:
    tried, refused, right, changed = (
        sum(values) for values in zip(*((row.tried, row.refused, row.right, row.changed) for row in rows), strict=True)
    )
    return Row(kind, tried, refused, right, note, changed)
