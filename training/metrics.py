"""metrics.jsonl, one row per event, and TensorBoard files on request."""

import contextlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from system.errors import UserError
from system.files import atomic_write, naming
from system.json_text import to_json

METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends a row for each event. A resumed run drops the rows after its checkpoint, since it repeats those steps."""

    def __init__(self, folder: Path, resumed_step: int, tensorboard: bool) -> None:
        self._path = path = folder / METRICS
        rows = [row for row in read_metrics(folder) if row["step"] <= resumed_step] if resumed_step and path.is_file() else []
        with atomic_write(path) as file:
            file.write("".join(to_json(row) + "\n" for row in rows).encode("utf-8", "replace"))
        self._file = path.open("a", encoding="utf-8", errors="replace")
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def add(self, step: int, **values: float | str) -> None:
        with naming(self._path):
            self._file.write(to_json({"step": step, **values}) + "\n")
            self._file.flush()
        if self._writer:
            for name, value in values.items():
                add = self._writer.add_text if isinstance(value, str) else self._writer.add_scalar
                add(name, value, step)

    def sync(self) -> None:
        """Make the rows so far durable: the checkpoint that follows them is, and a run resumes after it."""
        with naming(self._path):
            os.fsync(self._file.fileno())

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # closing writes again what a full disk has refused
            self._file.close()
        if self._writer:
            self._writer.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run. Damaged lines, such as one cut off by a kill, are left out: a log must not keep a run from resuming."""
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"no {path}: nothing has been trained there yet, or the file was deleted")
    rows = []
    for line in path.read_bytes().split(b"\n"):  # not splitlines: samples may contain other line separators
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int) and not any(isinstance(value, list | dict) for value in row.values()):
            rows.append(row)
    return rows
