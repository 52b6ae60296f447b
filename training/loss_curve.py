"""loss.png: over the tokens seen, the training and validation loss, how well the model copies, and HellaSwag if it was measured."""

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from system.escapes import escape_controls
from system.files import atomic_write
from training.copying import FIRST, SECOND
from training.metrics import METRICS, read_metrics
from training.run_record import RECORD, RESOLVED

PICTURE = "loss.png"
HELLASWAG = "hellaswag"  # its name in metrics.jsonl
COPIED = f"val_loss_{SECOND.replace(' ', '_')}", f"val_loss_{FIRST.replace(' ', '_')}"
WINDOW = 1.2  # smoothed: the mean of all steps with between 1 / WINDOW and WINDOW times the tokens
SUBTITLE_WIDTH = 120  # characters in a line


def redraw_loss_curve(folder: Path) -> None:
    """Draw loss.png, unless somebody deleted the metrics."""
    if (folder / METRICS).is_file():
        draw_loss_curve(folder)


def draw_loss_curve(folder: Path) -> Path:
    """Draw loss.png from metrics.jsonl; returns its path."""
    title = f"Loss of {folder} while it trained, and on held-out text"
    figure = make_figure(read_metrics(folder), escape_controls(title), escape_controls(_subtitle(folder)))
    with atomic_write(folder / PICTURE) as file:
        figure.savefig(file, format="png")
    return folder / PICTURE


def make_figure(rows: list[dict[str, Any]], title: str, subtitle: str = "") -> Any:
    """The picture of these rows of metrics, as a figure of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    copied = _points([row | {"share": _ratio(*(row.get(name) for name in COPIED))} for row in rows], "share")
    if len(copied[0]):
        axes, lower = figure.subplots(2, sharex=True, height_ratios=(5, 1))
        lower.plot(*copied, "^-", color="C3", linewidth=1.2, markersize=4)
        lower.set_title(
            f"Loss on a second copy of random tokens, as a share of that on the first: {copied[1][-1]:.2f} at the end", fontsize="small"
        )
        lower.grid(alpha=0.3)
    else:
        axes = lower = figure.add_subplot()
    # Curves that coincide are told apart: a faint line, a broad one, and above them a thin one with marks.
    tokens, losses = _points(rows, "loss")
    if len(tokens):
        smoothed = smooth(tokens, losses)
        axes.plot(tokens, losses, color="C0", linewidth=0.8, alpha=0.45, label="training, single steps")
        axes.plot(tokens, smoothed, color="C0", linewidth=3, alpha=0.6, label=f"training, smoothed: {smoothed[-1]:.3f} at the end")
    tokens, losses = _points(rows, "val_loss")
    if len(tokens):
        before = [row["val_loss"] for row in rows if row.get("tokens") == 0 and _is_number(row.get("val_loss"))]  # has no place on the axis
        ends = "".join(f"{loss:.3f} before training, " for loss in before[:1]) + f"{losses[-1]:.3f} at the end"
        axes.plot(tokens, losses, "o-", color="C1", linewidth=1.2, markersize=4, markeredgecolor="white", label=f"held out: {ends}")
    axes.set_xscale("log")
    lower.set_xlabel("training tokens (millions, logarithmic)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("loss (nats per token)")
    figure.suptitle(title, parse_math=False)
    axes.set_title(subtitle, parse_math=False, fontsize="small")
    axes.grid(alpha=0.3)
    tokens, shares = _points(rows, HELLASWAG)
    if len(tokens):
        right = axes.twinx()
        right.set_ylabel("HellaSwag, share right")
        axes.plot([], [], "s--", color="C2", label=f"HellaSwag: {shares[-1]:.1%} at the end")  # in the legend of the losses
        right.plot(tokens, shares, "s--", color="C2", linewidth=1.2, markersize=4)
    if axes.lines:
        if len(tokens):  # on top of all lines, right of losses that fall and left of shares that rise
            right.legend(*axes.get_legend_handles_labels(), loc="upper center")
        else:
            axes.legend()
    return figure


def smooth(tokens: NDArray[np.float64], losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """At each point the mean of the losses around it, over a window that has one width on a logarithmic axis; `tokens` must rise."""
    first = np.searchsorted(tokens, tokens / WINDOW, side="left")
    end = np.searchsorted(tokens, tokens * WINDOW, side="right")
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    means: NDArray[np.float64] = (sums[end] - sums[first]) / (end - first)
    return means


def _points(rows: list[dict[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Millions of tokens above 0, rising, and the values of a metric there."""
    found = sorted((row["tokens"], row[name]) for row in rows if _is_number(row.get("tokens")) and _is_number(row.get(name)))
    points = np.array([(tokens / 1e6, value) for tokens, value in found if tokens > 0], dtype=np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def _ratio(first: object, second: object) -> float | None:
    return first / second if isinstance(first, float) and isinstance(second, float) and second else None


def _subtitle(folder: Path) -> str:
    """What config.json says about the model and the data."""
    try:
        resolved = json.loads((folder / RECORD).read_text(encoding="utf-8"))[RESOLVED]
        return textwrap.fill("; ".join(map(str, resolved[:2])), SUBTITLE_WIDTH, max_lines=2)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a picture needs no record
        return ""


def _is_number(value: object) -> bool:
    """Whether a damaged log has a number here that can be drawn."""
    return isinstance(value, int | float) and abs(value) < 1e15
