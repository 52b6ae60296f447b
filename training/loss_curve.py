"""loss.png: the training and validation loss, and HellaSwag if it was measured, over the tokens seen."""

from pathlib import Path

from system.escapes import escape_controls
from system.files import atomic_write
from training.metrics import METRICS, read_metrics

PICTURE = "loss.png"
HELLASWAG = "hellaswag"  # its name in metrics.jsonl


def redraw_loss_curve(folder: Path) -> None:
    """Draw loss.png, unless somebody deleted the metrics."""
    if (folder / METRICS).is_file():
        draw_loss_curve(folder)


def draw_loss_curve(folder: Path) -> Path:
    """Draw loss.png from metrics.jsonl; returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure

    rows = read_metrics(folder)
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, label, style in (("loss", "training, single steps", "-"), ("val_loss", "validation", "o-")):
        points = [(row["tokens"] / 1e6, row[name]) for row in rows if _is_number(row.get("tokens")) and _is_number(row.get(name))]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"{label}: {points[-1][1]:.3f} at the end", linewidth=1.2, markersize=4)
    axes.set_xlabel("training tokens (millions)")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(escape_controls(str(folder)), parse_math=False)
    axes.grid(alpha=0.3)
    shares = [(row["tokens"] / 1e6, row[HELLASWAG]) for row in rows if _is_number(row.get("tokens")) and _is_number(row.get(HELLASWAG))]
    if shares:
        right = axes.twinx()
        right.set_ylabel("HellaSwag, share right")
        axes.plot([], [], "s--", color="C2", label=f"HellaSwag: {shares[-1][1]:.1%} at the end")  # in the legend of the losses
        right.plot(*zip(*shares, strict=True), "s--", color="C2", linewidth=1.2, markersize=4)
    if axes.lines:
        if shares:  # on top of all lines, between losses that fall and shares that rise
            right.legend(*axes.get_legend_handles_labels(), loc="center right")
        else:
            axes.legend()
    with atomic_write(folder / PICTURE) as file:
        figure.savefig(file, format="png")
    return folder / PICTURE


def _is_number(value: object) -> bool:
    """Whether a damaged log has a number here that can be drawn."""
    return isinstance(value, int | float) and abs(value) < 1e15
