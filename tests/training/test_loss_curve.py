"""The picture of the loss."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import call_script, fails_with
from tests.training.runs import Run
from training.loss_curve import draw_loss_curve, make_figure, smooth


def test_a_run_that_has_just_started_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens": 5, "loss": 2.0}\n{"step": 2, "tok')
    assert draw_loss_curve(tmp_path).read_bytes().startswith(b"\x89PNG")
    (tmp_path / "metrics.jsonl").write_text("")
    assert draw_loss_curve(tmp_path).read_bytes().startswith(b"\x89PNG")


def test_plot_draws_the_curve_of_a_run(pretrained: Run, tmp_path: Path) -> None:
    shutil.copy(pretrained.folder / "metrics.jsonl", tmp_path)
    result = call_script("train_xcoax.py", "--out-dir", tmp_path, "--plot")
    assert (result.returncode, result.stdout) == (0, f"drew {tmp_path / 'loss.png'}\n"), result.stderr
    assert (tmp_path / "loss.png").is_file()
    fails_with(call_script("finetune_xcoax.py", "--out-dir", tmp_path / "none", "--plot"), 1, "nothing has been trained there yet")


def test_the_axis_is_logarithmic_and_the_loss_before_training_is_in_the_legend() -> None:
    rows = [{"tokens": 0, "val_loss": 9.5}, {"tokens": 1_000_000, "loss": 7.0}, {"tokens": 4_000_000, "loss": 5.0, "val_loss": 4.25}]
    axes = make_figure(rows, "What is seen").axes[0]
    assert axes.get_xscale() == "log"
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert curves["held out: 9.500 before training, 4.250 at the end"] == [[4, 4.25]]
    assert curves["training, single steps"] == [[1, 7], [4, 5]]


def test_curves_with_the_same_values_are_told_apart() -> None:
    rows = [{"tokens": 10**step, "loss": 1.0, "val_loss": 1.0} for step in range(3, 7)]
    lines = make_figure(rows, "").axes[0].lines
    assert len(lines) == 3
    widths = [line.get_linewidth() for line in lines]
    assert widths[1] > 2 * widths[0] and widths[1] > 2 * widths[2]  # the upper ones leave the broad one visible
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert [line.get_marker() for line in lines] == ["None", "None", "o"]
    assert lines[2].get_zorder() >= lines[1].get_zorder()


def test_smoothing_is_the_mean_over_a_window_of_one_width_on_the_axis() -> None:
    tokens = np.array([1, 10, 11, 12, 13, 100, 1000.0])
    assert smooth(tokens, np.array([9, 8, 5, 2, 8, 7, 6.0])) == pytest.approx([9, 5, 5.75, 5.75, 5, 7, 6])


def test_the_title_says_what_is_seen_and_a_damaged_record_costs_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def figure(rows: object, title: str, subtitle: str = "") -> object:
        drawn.append((title, subtitle))
        return make_figure(rows, title, subtitle)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr("training.loss_curve.make_figure", figure)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens": 5, "loss": 2.0}\n')
    for record, shown in (
        ('{"resolved": ["1 M parameters $x^", "2 tokens\\u0007", "c"]}', "1 M parameters $x^; 2 tokens␇"),
        ("{", ""),
        ("[]", ""),
    ):
        (tmp_path / "config.json").write_text(record)
        draw_loss_curve(tmp_path)
        assert drawn.pop() == (f"Loss of {tmp_path} while it trained, and on held-out text", shown)


def test_copying_is_drawn_as_the_share_of_the_loss_that_is_left_on_the_second_copy() -> None:
    row = {"tokens": 2_000_000, "val_loss": 5.0, "val_loss_random_tokens": 10.0, "val_loss_random_tokens_again": 4.0}
    losses, copying = make_figure([row, row | {"tokens": 4_000_000, "val_loss_random_tokens_again": "damaged"}], "").axes
    assert [line.get_xydata().tolist() for line in copying.lines] == [[[2, 0.4]]]
    assert len(losses.lines) == 1
