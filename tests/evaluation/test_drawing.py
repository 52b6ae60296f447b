"""Pictures: the same curves give the same bytes, identical ones are both seen, and baselines are quiet."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from evaluation.bootstrap import Estimate
from evaluation.drawing import draw
from evaluation.report import Picture

CURVE = [(float(x), Estimate(x, x - 0.1, x + 0.1)) for x in (1, 2, 4)]


def picture(names: Collection[str], baselines: Collection[str] = ()) -> Picture:
    """Curves that lie on each other, from the lower left corner to the upper right."""
    return Picture("report_ranking.png", "t $1", "x", "y", dict.fromkeys(names, CURVE), baselines=baselines)


def lower_right_of_curves(folder: Path, drawn: Picture) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The colours of the pixels in the right half of the plot, below its legend, without the axes."""
    draw(folder, drawn)
    pixels = np.asarray(imread(folder / drawn.name), float)[:, :, :3]
    height, width = pixels.shape[:2]
    return pixels[height // 2 : int(0.85 * height), width // 4 : int(0.97 * width)].reshape(-1, 3)


def pixels_of(color: str, pixels: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> int:
    return int((np.abs(pixels - to_rgb(color)).max(axis=1) < 0.02).sum())


def test_the_same_curves_give_the_same_bytes(tmp_path: Path) -> None:
    drawn = picture(["a", "b"])
    found = []
    for _ in range(2):
        draw(tmp_path, drawn)
        found.append([(tmp_path / name).read_bytes() for name in drawn.file_names])
    assert found[0] == found[1]
    assert found[0][0].startswith(b"\x89PNG") and b"<svg" in found[0][1]


def test_identical_curves_are_both_seen(tmp_path: Path) -> None:
    pixels = lower_right_of_curves(tmp_path, picture(["a", "b"]))
    assert pixels_of("C0", pixels) > 50 and pixels_of("C1", pixels) > 50


def test_baselines_are_grey_and_take_no_colour_of_the_models(tmp_path: Path) -> None:
    pixels = lower_right_of_curves(tmp_path, picture(["chance"], baselines=["chance"]))
    assert np.ptp(pixels, axis=1).max() < 0.01 and pixels.min() < 0.7
    pixels = lower_right_of_curves(tmp_path, picture(["chance", "model"], baselines=["chance"]))
    assert pixels_of("C0", pixels) > 50
