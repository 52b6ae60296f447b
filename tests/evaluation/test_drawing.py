"""Pictures: the same curves give the same bytes, identical ones are both seen, and baselines are quiet."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from evaluation.bootstrap import Estimate
from evaluation.drawing import choose_styles, draw
from evaluation.report import Picture

CURVE = [(float(x), Estimate(x, x - 0.1, x + 0.1)) for x in (1, 2, 4)]


def picture(names: Collection[str], baselines: Collection[str] = ()) -> Picture:
    """Curves that lie on each other, from the lower left corner to the upper right."""
    return Picture("report_ranking.png", "t $1", "x", "y", dict.fromkeys(names, CURVE), baselines=baselines)


def pixels_of(color: str, pixels: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> int:
    return int((np.abs(pixels - to_rgb(color)).max(axis=1) < 0.02).sum())


def test_the_same_curves_give_the_same_bytes_and_identical_ones_are_both_seen(tmp_path: Path) -> None:
    drawn = picture(["a", "b"])
    found = []
    for _ in range(2):
        draw(tmp_path, drawn)
        found.append([(tmp_path / name).read_bytes() for name in drawn.file_names])
    assert found[0] == found[1]
    assert found[0][0].startswith(b"\x89PNG") and b"<svg" in found[0][1]
    pixels = np.asarray(imread(tmp_path / drawn.name), float)[:, :, :3]
    height, width = pixels.shape[:2]
    curves = pixels[height // 2 : int(0.85 * height), width // 4 : int(0.97 * width)].reshape(-1, 3)  # without the legend
    assert pixels_of("C0", curves) > 50 and pixels_of("C1", curves) > 50


def test_baselines_are_grey_and_take_no_colour_of_the_models() -> None:
    drawn = picture(["chance", "model", "words"], baselines=["chance", "words"])
    styles = choose_styles(drawn.curves, drawn, iter(["blue"]))
    assert np.ptp(to_rgb(styles["chance"].color)) == 0 and styles["chance"].color == styles["words"].color
    assert styles["model"].color == "blue" and styles["chance"].line != styles["words"].line


def test_seeds_share_the_colour_of_their_family_and_their_mean_is_stronger() -> None:
    names = ["b0", "b1", "f0", "f1", "mean b", "mean f"]
    drawn = picture(names)
    drawn.families, drawn.means = {name: name.strip("mean 01") for name in names}, ["mean b", "mean f"]
    styles = choose_styles(names, drawn, iter(["blue", "orange"]))
    assert [styles[name].color for name in names] == ["blue", "blue", "orange", "orange", "blue", "orange"]
    assert styles["b0"].line == styles["f0"].line != styles["b1"].line  # twins look alike
    assert styles["mean b"].width > styles["b0"].width
    assert [styles[name].has_band for name in names] == [False] * 4 + [True] * 2
    drawn.means = []
    assert all(style.has_band for style in choose_styles(names[:4], drawn, iter(["blue", "orange"])).values())


def test_gaps_have_a_panel_of_their_own(tmp_path: Path) -> None:
    drawn = picture(["a", "b"])
    drawn.gaps = {"gap": [(x, Estimate(0.01)) for x, _ in CURVE]}
    draw(tmp_path, drawn)
    height, width = imread(tmp_path / drawn.name).shape[:2]
    assert height > 0.9 * width
    assert pixels_of("C2", np.asarray(imread(tmp_path / drawn.name), float)[int(0.7 * height) :, :, :3].reshape(-1, 3)) > 50
    assert drawn.as_json()["gaps"]["gap"][0] == {"x": 1.0, "value": 0.01, "low": None, "high": None, "examples": None}
