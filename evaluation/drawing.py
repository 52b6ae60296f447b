"""The pictures of a report, as PNG for screens, as SVG for print."""

import itertools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.report import Curve, Picture
from system.escapes import escape_controls
from system.files import atomic_write

LineStyle = str | tuple[int, tuple[int, int]]
# Two identical curves lie on each other: the second one is dashed with hollow markers, so that both can be seen.
STYLES = (("-", "o", True), ("--", "s", False), ("-.", "^", True), (":", "D", False))  # line, marker, whether it is filled
QUIET = "0.55"  # the grey of what needs no model
QUIET_STYLES = ("--", ":", "-.")
FAMILY_STYLES: tuple[LineStyle, ...] = (
    "--",
    ":",
    "-.",
    (0, (7, 1)),
    (0, (1, 3)),
)  # of its members, the same in each family, so that twins look alike
GAP_LABEL = "gap"
LONG_LEGEND = 6  # a longer one is beside the curves, not among them
FINE = 0.05  # an axis of gaps this short needs a decimal


class Style(NamedTuple):
    """How a curve is drawn."""

    color: str
    line: LineStyle
    marker: str = ""
    is_filled: bool = True
    width: float = 1.4
    opacity: float = 1.0
    has_band: bool = True  # its interval is shown


def draw(folder: Path, picture: Picture) -> None:
    """Write the picture in both formats; the same curves give the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure

    colors = (f"C{number % 10}" for number in itertools.count())
    figure = Figure(figsize=(8, 7.5 if picture.gaps else 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(1 + bool(picture.gaps), squeeze=False, sharex=True, height_ratios=(5, 3)[: 1 + bool(picture.gaps)])
    axes = rows[0, 0]
    _draw_curves(axes, picture.curves, choose_styles(picture.curves, picture, colors))
    axes.set_ylabel(picture.y_label)
    axes.set_title(escape_controls(picture.title), parse_math=False)
    if picture.y_range:
        axes.set_ylim(*picture.y_range)
    if picture.gaps:
        below = rows[1, 0]
        _draw_curves(below, picture.gaps, choose_styles(picture.gaps, picture, colors))
        below.axhline(0, color="0.3", linewidth=0.8, zorder=1)
        below.yaxis.set_major_formatter("{x:+.0%}" if np.ptp(below.get_ylim()) > FINE else "{x:+.1%}")
        below.set_ylabel(GAP_LABEL)
    axes.set_xscale(picture.x_scale)
    rows[-1, 0].xaxis.set_major_formatter("{x:,.0f}")
    rows[-1, 0].set_xlabel(picture.x_label)
    with mpl.rc_context({"svg.hashsalt": picture.name}):
        for file_name in picture.file_names:
            kind = file_name[-3:]
            with atomic_write(folder / file_name) as file:
                figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)


def choose_styles(curves: Collection[str], picture: Picture, colors: Iterator[str]) -> dict[str, Style]:
    """A colour for each family of curves, where its mean is drawn stronger, and for each curve that has none; grey for baselines."""
    styles, quiet_styles = itertools.cycle(STYLES), itertools.cycle(QUIET_STYLES)
    families = {name: picture.families[name] for name in curves if name in picture.families}
    with_mean = {families[name] for name in picture.means if name in families}
    color_of = {name: next(colors) for name in dict.fromkeys(families.get(name, name) for name in curves if name not in picture.baselines)}
    lines = {family: itertools.cycle(FAMILY_STYLES) for family in families.values()}
    found = {}
    for name in curves:
        if name in picture.baselines:
            found[name] = Style(QUIET, next(quiet_styles), width=1.2)
        elif name not in families:
            found[name] = Style(color_of[name], *next(styles))
        elif name in picture.means:
            found[name] = Style(color_of[families[name]], "-", "o", width=2.2)
        else:
            family = families[name]
            found[name] = Style(color_of[family], next(lines[family]), width=1.1, opacity=0.8, has_band=family not in with_mean)
    return found


def _draw_curves(axes: Any, curves: Mapping[str, Curve], styles: Mapping[str, Style]) -> None:
    """Curves on matplotlib's axes with their intervals, and a legend."""
    for name, curve in curves.items():
        x, estimates = zip(*curve, strict=True)
        style = styles[name]
        [line] = axes.plot(x, [estimate.value for estimate in estimates], color=style.color, linestyle=style.line, marker=style.marker)
        line.set(
            label=escape_controls(name).replace("$", r"\$"),
            linewidth=style.width,
            alpha=style.opacity,
            markersize=4 if style.is_filled else 6,
        )
        if not style.is_filled:
            line.set_markerfacecolor("none")
        if style.color == QUIET:
            line.set_zorder(1)
        if style.has_band:
            low = [estimate.value if estimate.low is None else estimate.low for estimate in estimates]
            high = [estimate.value if estimate.high is None else estimate.high for estimate in estimates]
            axes.fill_between(x, low, high, color=style.color, alpha=0.12, linewidth=0)
    axes.grid(alpha=0.3)
    colors = list(dict.fromkeys(style.color for style in styles.values()))
    lines = sorted(axes.get_lines(), key=lambda line: colors.index(str(line.get_color())))  # those of a family together
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0} if len(lines) > LONG_LEGEND else {}
    axes.legend(handles=lines, **beside)
