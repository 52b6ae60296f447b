"""Owns benchmark.png: each figure as a share of its bound, with the yardstick."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarking.measurement import Section, spread
from benchmarking.report import short
from system.files import atomic_write

PICTURE = "benchmark.png"
HEADINGS = {"preprocess": "preprocessing", "train": "training", "generate": "generating", "score": "scoring"}
OURS, BOUND, YARDSTICK = "#2f6f9f", "#e7eaee", "#d9772b"
WIDEST = 1.5  # share of the bound that still fits into the picture: a busy machine can slow one bound down
ROW_INCHES, PART_ROWS = 0.3, 1.4  # height of a row; rows that the heading of a part takes


def draw_picture(folder: Path, title: str, sections: Sequence[Section]) -> Path:
    """Draw benchmark.png; returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure

    parts = [
        (HEADINGS[section.part], [each for each in section.measurements if each.bounds]) for section in sections if section.part in HEADINGS
    ]
    height = sum(len(rows) + PART_ROWS for _, rows in parts)
    figure = Figure(figsize=(10, 1.3 + ROW_INCHES * height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    place, places, names, reached = 0.0, [], [], []
    for heading, rows in parts:
        axes.text(0, place + PART_ROWS - 1, heading, weight="bold", va="center")
        place += PART_ROWS
        for each in rows:
            share, figures, bounds = spread(each.shares), spread(each.figures), spread(each.bounds)
            reached.append(share.high)
            axes.barh(place, 1, 0.72, color=BOUND, zorder=1)
            axes.barh(place, share.median, 0.72, color=OURS, zorder=2)
            axes.plot([share.low, share.high], [place, place], color="black", linewidth=1, alpha=0.6, zorder=4)
            text = f"{short(figures.median)} of {short(bounds.median)} {each.unit}"
            if each.yardsticks:
                other = spread([yardstick / bound for yardstick, bound in zip(each.yardsticks, each.bounds, strict=True)]).median
                reached.append(other)
                axes.plot([other, other], [place - 0.36, place + 0.36], color=YARDSTICK, linewidth=3, zorder=3)
                text += f"   ({spread(each.times_yardstick).median:.2f} × yardstick)"
            beside = axes.get_yaxis_transform()
            axes.text(1.07, place, f"{share.median:.0%}", ha="right", va="center", fontsize=9, transform=beside)
            axes.text(1.09, place, text, va="center", fontsize=9, transform=beside)
            places.append(place)
            names.append(each.name)
            place += 1
    axes.set_yticks(places, names)
    axes.set_ylim(place, 0)
    axes.set_xlim(0, min(max([1.0, *reached]) * 1.02, WIDEST))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the bound")
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    handles: list[Any] = [axes.barh([place], [0], color=color, label=label) for color, label in ((OURS, "ours"), (BOUND, "bound"))]
    handles += axes.plot([], [], color=YARDSTICK, linewidth=3, label="yardstick")
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    figure.suptitle(title, fontsize=11)
    with atomic_write(folder / PICTURE) as file:
        figure.savefig(file, format="png")
    return folder / PICTURE
