"""What a run prints: text of models and data sets cannot drive the terminal."""

import itertools
import re
import types
from pathlib import Path

import pytest

from config import LoopConfig
from system.signals import StopSignals
from tests.conftest import make_pairs, write_pairs
from tests.preprocessing.in_process import run_here
from tests.training.runs import pretrain, tune
from training.metrics import read_metrics
from training.run_log import RunLog

TITLE = "\x1b]0;pwn\x07"  # sets the title of the terminal's window


def test_control_characters_are_shown_and_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunLog(LoopConfig(str(tmp_path)), StopSignals("stopping")).say(f"    | a{TITLE}b\n    | c")
    assert capsys.readouterr().out == "    | a␛]0;pwn␇b\n    | c\n"


def test_log_lines_tell_the_time_left_and_the_last_line_the_time_of_all_sittings(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=50)  # seconds, at each look
    monkeypatch.setattr("training.throughput.time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    flags = ("--eval-every", 100, "--sample-tokens", 0)
    first = pretrain(dataset_folder, tmp_path, "--max-steps", 4, *flags)
    lines = re.findall(r"^step \d/4 .*FLOP/s(.*)$", first.stdout, flags=re.MULTILINE)
    assert lines[0] == ""  # nothing has been measured
    # A step takes one look, of 50 s. The evaluation before the first step took 50 s too, and one is left.
    assert lines[1:] == ["  2 min 30 s left", "  1 min 40 s left", "  50 s left"], first.stdout
    pretrain(dataset_folder, tmp_path, "--max-steps", 6, *flags)
    seconds = [row["seconds"] for row in read_metrics(tmp_path) if "loss" in row]
    resumed = pretrain(dataset_folder, tmp_path, "--max-steps", 10, "--log-every", 2, *flags)
    assert re.findall(r"^step (\d+)/10 .*FLOP/s  .+ left$", resumed.stdout, flags=re.MULTILINE) == ["8", "10"]  # 7 is timed, not logged
    assert [row["step"] for row in read_metrics(tmp_path) if "loss" in row] == [1, 2, 3, 4, 5, 6, 8, 10]
    last_line = resumed.stdout.splitlines()[-1]
    total = re.match(r"finished in (\d+) min (\d+) s of training, (\d+) min (\d+) s of it in this sitting: ", last_line)
    assert total, last_line
    minutes, more_seconds, minutes_here, seconds_here = map(int, total.groups())
    assert 60 * (minutes - minutes_here) + more_seconds - seconds_here >= seconds[-1] > 200


def test_samples_of_a_hostile_data_set_do_not_drive_the_terminal(base: Path, tmp_path: Path) -> None:
    pairs = [{name: TITLE + text for name, text in pair.items()} for pair in make_pairs(20)]
    source = write_pairs(tmp_path / "pairs.jsonl", pairs)
    flags = ["--tokenizer", base, "--vocab-size", 400, "--block-size", 64, "--val-share", 0.3]
    made = run_here("preprocess_instruct.py", "--input", source, "--data-dir", tmp_path / "data", *flags)
    assert made.returncode == 0, made.stderr
    result = tune(base, tmp_path / "data", tmp_path / "out", "--epochs", 0.5)
    assert result.returncode == 0, result.stderr
    assert "    | true:      ␛]0;pwn␇" in result.stdout
    assert not set("\x1b\x07") & set(result.stdout + result.stderr)
