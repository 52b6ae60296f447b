"""The picture of the loss."""

import shutil
from pathlib import Path

from tests.conftest import call_script, fails_with
from tests.training.runs import Run
from training.loss_curve import draw_loss_curve


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
