"""Owns benchmark.png: each figure as a share of its bound, with the yardstick."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarking.measurement import Measurement, Section, spread
from benchmarking.report import short
from system.files import atomic_write

PICTURE = "benchmark.png"
HEADINGS = {"preprocess": "preprocessing", "train": "training", "generate": "generating", "score": "scoring"}
OURS, BOUND, YARDSTICK = "#2f6f9f", "#e3e7ec", "#d9772b"
WIDEST = 1.25  # share of the bound at the right edge, at most; what is beyond becomes an arrow
BAR, ROW_INCHES, HEADING_ROWS = 0.72, 0.3, 1.4  # thickness of a bar in rows, height of a row, rows that a heading takes


def draw_picture(folder: Path, title: str, sections: Sequence[Section]) -> Path:
    """Draw benchmark.png; returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure

    parts = {HEADINGS[section.part]: section.measurements for section in sections if section.part in HEADINGS}
    height = sum(len(rows) + HEADING_ROWS for rows in parts.values())
    figure = Figure(figsize=(10, 1.3 + ROW_INCHES * height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    edge = min(1.02 * max(1.0, *(spread(each.shares).median for rows in parts.values() for each in rows)), WIDEST)
    place, ticks = 0.0, {}
    for heading, rows in parts.items():
        axes.text(0, place + HEADING_ROWS - 1, heading, weight="bold", va="center")
        place += HEADING_ROWS
        for each in rows:
            _draw_row(axes, place, each, edge)
            ticks[place] = each.name
            place += 1
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(place, 0)
    axes.set_xlim(0, edge)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the bound")
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    handles: list[Any] = [axes.barh([place], [0], color=color, label=label) for color, label in ((OURS, "measured"), (BOUND, "bound"))]
    handles += axes.plot([], [], color=YARDSTICK, linewidth=3, label="yardstick")
    handles += axes.plot([], [], color="black", linewidth=1, label="range of the repeats")
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False)
    figure.suptitle(title, fontsize=11)
    with atomic_write(folder / PICTURE) as file:
        figure.savefig(file, format="png")
    return folder / PICTURE


def _draw_row(axes: Any, place: float, each: Measurement, edge: float) -> None:
    """A bar on that of its bound, the yardstick as a tick, the numbers beside them."""
    share, times = spread(each.shares), spread(each.times_yardstick)
    axes.barh(place, 1, BAR, color=BOUND, zorder=1)
    axes.barh(place, share.median, BAR, color=OURS, zorder=2)
    axes.plot([share.low, share.high], [place, place], color="black", linewidth=1, alpha=0.6, zorder=4)
    plain = share.median / times.median
    if plain < edge:
        axes.plot([plain, plain], [place - BAR / 2, place + BAR / 2], color=YARDSTICK, linewidth=3, zorder=3)
    else:
        axes.plot([edge], [place], marker=">", color=YARDSTICK, markersize=7, clip_on=False, zorder=3)
    beside, style = axes.get_yaxis_transform(), {"va": "center", "fontsize": 9}
    axes.text(1.08, place, f"{share.median:.0%}", ha="right", transform=beside, **style)
    numbers = f"{short(spread(each.figures).median)} of {short(spread(each.bounds).median)} {each.unit}"
    axes.text(1.10, place, f"{numbers}   ({short(times.median)} × yardstick)", transform=beside, **style)
