"""The benchmark measures every part of a tiny model and writes its figures and its picture."""

import contextlib
import functools
import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.conftest import call_script, fails_with

TINY = (
    "demo",
    *("--n-layer", 1, "--n-embed", 16, "--n-head", 2, "--block-size", 32, "--batch-size", 2, "--device", "cpu", "--dtype", "float32"),
    *("--prompt-tokens", 4, "--tokens", 3, "--rows", 1, 3, "--candidates", 5, "--candidate-tokens", 4, "--text-mb", 0.3, "--workers", 1),
)
SHORT = {  # a figure that nobody reads needs no long sample
    "timing.SAMPLE_SECONDS": 0.01,
    "training_speed.SAMPLE_SECONDS": 0.01,
    "preprocessing_speed.ENCODE_SECONDS": 0.01,
    "machine.COPY_BYTES": 1 << 20,
    "machine.DISK_BYTES": 1 << 22,
}
PARTS = ["machine", "preprocess", "train", "generate", "score"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run of all parts wrote its files. Its models are traced as for a compiler, but not compiled, which takes a minute."""
    folder = tmp_path_factory.mktemp("benchmark")
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch("torch.compile", functools.partial(torch.compile, backend="eager")))
        for name, value in SHORT.items():
            patches.enter_context(mock.patch(f"benchmarking.{name}", value))
        result = call_script("benchmark_xcoax.py", *TINY, "--repeats", 2, "--out-dir", folder, "--json", folder / "more" / "figures.json")
    assert result.returncode == 0, result.stderr
    (folder / "stdout").write_text(result.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "more" / "figures.json").read_text(encoding="utf-8"))
    return found


def rows(figures: dict[str, Any], part: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in figures["parts"][part]["measurements"]}


def test_every_part_is_measured(figures: dict[str, Any]) -> None:
    assert list(figures["parts"]) == PARTS
    assert list(rows(figures, "preprocess")) == ["1 worker"]
    assert list(rows(figures, "train")) == ["eager", "compiled"]
    kinds = [f"{dtype}, {what}" for dtype in ("float32", "bfloat16", "int8") for what in ("prefill", "1 text", "3 texts")]
    assert list(rows(figures, "generate")) == kinds
    assert list(rows(figures, "score")) == ["ranking"]
    assert figures["parameters"] == 1024 * 16 + 4 * 16**2 + 3 * 16 * 64 + 3 * 16 + 2 * 8


def test_figures_bounds_and_shares_agree(figures: dict[str, Any]) -> None:
    for part in PARTS:
        for row in rows(figures, part).values():
            measured = row["figure"]["repeats"]
            assert len(measured) == 2 and min(measured) > 0
            assert row["figure"]["low"] <= row["figure"]["median"] <= row["figure"]["high"]
            for other, ratio in (("bound", "share"), ("yardstick", "times_yardstick")):
                assert (other in row) == (ratio in row) == (part != "machine")
                if other in row:
                    expected = [figure / value for figure, value in zip(measured, row[other]["repeats"], strict=True)]
                    assert row[ratio]["repeats"] == pytest.approx(expected)


def test_a_step_is_split_into_its_phases(figures: dict[str, Any]) -> None:
    details = figures["parts"]["train"]["details"]
    assert list(details) == ["ours, eager", "yardstick, eager", "ours, compiled", "yardstick, compiled"]
    for row in details.values():
        assert all(row[f"{phase}, ms"] > 0 for phase in ("data", "forward", "backward", "optimizer"))
    assert all(row["time to the first token, ms"] > 0 for row in figures["parts"]["generate"]["details"].values())


def test_the_tables_have_the_figures(folder: Path, figures: dict[str, Any]) -> None:
    printed = (folder / "stdout").read_text(encoding="utf-8")
    for part in figures["parts"].values():
        assert f"### {part['title']}\n" in printed
        for row in part["measurements"]:
            assert re.search(rf"^\| {re.escape(row['name'])} +\| +[\d,.e-]+ {row['unit']}", printed, flags=re.MULTILINE), row["name"]


def test_the_picture_stays_and_nothing_else(folder: Path) -> None:
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == {".lock", "benchmark.png", "more", "stdout"}


def test_parts_are_chosen(tmp_path: Path) -> None:
    flags = ["--parts", "score", "--repeats", 1, "--out-dir", tmp_path / "out", "--json", tmp_path / "figures.json"]
    assert call_script("benchmark_xcoax.py", *TINY, *flags).returncode == 0
    assert list(json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["parts"]) == ["machine", "score"]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--repeats", 0), ("--repeats 0", "above 0")),
        (("--rows", 1, 0), ("--rows 1 0", "above 0")),
        (("--tokens", 1), ("--tokens 1", "2 or more")),
        (("--text-mb", "nan"), ("--text-mb nan", "above 0")),
        (("--batch-size", -1), ("--batch-size -1", "0 or more")),
        (("--prompt-tokens", 30), ("--prompt-tokens 30", "--tokens 3", "--block-size 32")),
        (("--candidate-tokens", 29), ("--prompt-tokens 4", "--candidate-tokens 29", "--block-size 32")),
        (("--device", "cuda"), ("--device cuda: not available",)),
    ],
)
def test_bad_flags_end_in_one_line(flags: tuple[object, ...], parts: tuple[str, ...]) -> None:
    if "cuda" in flags and torch.cuda.is_available():
        flags, parts = ("--device", "mps"), ("--device mps: not available",)
    fails_with(call_script("benchmark_xcoax.py", *TINY, *flags), 2, *parts)


def test_an_unknown_part_is_refused() -> None:
    result = call_script("benchmark_xcoax.py", *TINY, "--parts", "evaluate")
    assert result.returncode == 2 and "evaluate" in result.stderr and "Traceback" not in result.stderr


def test_a_folder_that_cannot_be_written_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails_with(call_script("benchmark_xcoax.py", *TINY, "--out-dir", tmp_path / "file" / "out"), 1, "--out-dir")
