"""The pictures of a report, as PNG for screens, as SVG for print."""

import itertools
from pathlib import Path

from evaluation.report import Picture
from system.escapes import escape_controls
from system.files import atomic_write

# Two identical curves lie on each other: the second one is dashed with hollow markers, so that both can be seen.
STYLES = (("-", "o", True), ("--", "s", False), ("-.", "^", True), (":", "D", False))  # line, marker, whether it is filled
QUIET = "0.55"  # the grey of what needs no model
QUIET_STYLES = ("--", ":", "-.")


def draw(folder: Path, picture: Picture) -> None:
    """Write the picture in both formats; the same curves give the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles, quiet_styles = itertools.cycle(STYLES), itertools.cycle(QUIET_STYLES)
    for name, curve in picture.curves.items():
        x, estimates = zip(*curve, strict=True)
        label = escape_controls(name).replace("$", r"\$")
        values = [estimate.value for estimate in estimates]
        if name in picture.baselines:
            [line] = axes.plot(x, values, next(quiet_styles), color=QUIET, label=label, linewidth=1.2, zorder=1)
        else:
            dashes, marker, is_filled = next(styles)
            [line] = axes.plot(x, values, dashes, marker=marker, label=label, linewidth=1.4, markersize=4 if is_filled else 6)
            if not is_filled:
                line.set_markerfacecolor("none")
        low = [estimate.value if estimate.low is None else estimate.low for estimate in estimates]
        high = [estimate.value if estimate.high is None else estimate.high for estimate in estimates]
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set_xscale(picture.x_scale)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(picture.x_label)
    axes.set_ylabel(picture.y_label)
    axes.set_title(escape_controls(picture.title), parse_math=False)
    axes.grid(alpha=0.3)
    if picture.y_range:
        axes.set_ylim(*picture.y_range)
    axes.legend()
    with mpl.rc_context({"svg.hashsalt": picture.name}):
        for file_name in picture.file_names:
            kind = file_name[-3:]
            with atomic_write(folder / file_name) as file:
                figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
