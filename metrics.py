"""What a run measured: metrics.jsonl for machines, TensorBoard files on request, and loss.png."""

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

from disk import replacing
from errors import UserError

METRICS = "metrics.jsonl"
PICTURE = "loss.png"


class Metrics:
    """Appends a row for each event. A run that resumes drops the rows after its checkpoint: those steps come again."""

    def __init__(self, folder: Path, resumed_step: int, tensorboard: bool) -> None:
        path = folder / METRICS
        rows = [row for row in read_metrics(folder) if row["step"] <= resumed_step] if resumed_step and path.is_file() else []
        with replacing(path) as file:
            file.write("".join(_line(row) for row in rows).encode())
        self._file = path.open("a", encoding="utf-8")
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def add(self, step: int, **values: float | str) -> None:
        self._file.write(_line({"step": step, **values}))
        self._file.flush()
        if self._writer:
            for name, value in values.items():
                add = self._writer.add_text if isinstance(value, str) else self._writer.add_scalar
                add(name, value, step)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._writer:
            self._writer.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run; a last line that a kill cut off is left out."""
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"no {path}: nothing was trained there yet")
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def draw_loss(folder: Path) -> Path:
    """Draw the loss over the tokens seen into loss.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure

    rows = read_metrics(folder)
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, label, style in (("loss", "training, single steps", "-"), ("val_loss", "validation", "o-")):
        points = [(row["tokens"] / 1e6, row[name]) for row in rows if row.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"{label}: {points[-1][1]:.3f} at the end", linewidth=1.2, markersize=4)
    axes.set_xlabel("training tokens (millions)")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(str(folder))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    with replacing(folder / PICTURE) as file:
        figure.savefig(file, format="png")
    return folder / PICTURE


def _line(row: dict[str, Any]) -> str:
    """A row as JSON, which has no word for a number that is none."""
    finite = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"
