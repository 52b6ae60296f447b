"""metrics.jsonl: rows that survive a kill, drop repeated steps on resuming, and stay valid JSON; TensorBoard on request."""

import errno
import io
import json
import math
from pathlib import Path

import pytest

from system.errors import UserError
from tests.training.runs import pretrain
from training.metrics import MetricsLog, read_metrics


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, resumed_step=0, tensorboard=False) as metrics:
        for step in range(1, 6):
            metrics.add(step, loss=1.0 / step)
    with MetricsLog(tmp_path, resumed_step=3, tensorboard=False) as metrics:
        metrics.add(4, loss=0.5)
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(1, 1.0), (2, 0.5), (3, 1.0 / 3), (4, 0.5)]
    with MetricsLog(tmp_path, resumed_step=0, tensorboard=False):
        pass
    assert read_metrics(tmp_path) == []  # a new run


def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens": 5, "loss": 2.0}\n{"step": 2, "tok')
    assert read_metrics(tmp_path) == [{"step": 1, "tokens": 5, "loss": 2.0}]


def test_a_row_that_is_nested_is_left_out(tmp_path: Path) -> None:
    """No run writes one; nested deeply enough, it can be read but not written again."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": ' + "[" * 900 + "]" * 900 + '}\n{"step": 2}\n')
    assert read_metrics(tmp_path) == [{"step": 2}]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, resumed_step=0, tensorboard=False) as metrics:
        metrics.add(1, loss=math.nan, grad_norm=math.inf, sample="naïve")
    [line] = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"step": 1, "loss": None, "grad_norm": None, "sample": "naïve"}


def test_a_folder_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing has been trained there yet"):
        read_metrics(tmp_path)


def test_rows_are_durable_before_the_checkpoint_that_follows_them(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a run goes on from its checkpoint, and does not repeat the steps before it."""
    synced: list[int] = []
    monkeypatch.setattr(MetricsLog, "sync", lambda metrics: synced.append(read_metrics(tmp_path)[-1]["step"]))
    monkeypatch.setattr("training.loop.save_checkpoint", lambda path, step, **_: synced.append(-step))
    assert pretrain(dataset_folder, tmp_path, "--max-steps", 4, "--eval-every", 2, "--log-every", 1).returncode == 0
    assert synced == [2, -2, 2, -2, 4, -4, 4, -4]  # the last checkpoint and the best one


def test_tensorboard_files_are_written_on_request(dataset_folder: Path, tmp_path: Path) -> None:
    result = pretrain(dataset_folder, tmp_path, "--max-steps", 2, "--tensorboard")
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


class FullDisk(io.StringIO):
    """A file on a full disk, also when what was not written is written again at the end."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="No space left") as caught, MetricsLog(tmp_path, resumed_step=0, tensorboard=False) as metrics:
        monkeypatch.setattr(metrics, "_file", FullDisk())
        metrics.add(1, loss=1.0)
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")
