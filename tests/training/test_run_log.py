"""What a run prints: text of models and data sets cannot drive the terminal."""

from pathlib import Path

import pytest

from config import LoopConfig
from system.signals import StopSignals
from tests.conftest import make_pairs, write_pairs
from tests.preprocessing.in_process import run_here
from tests.training.runs import tune
from training.run_log import RunLog

TITLE = "\x1b]0;pwn\x07"  # sets the title of the terminal's window


def test_control_characters_are_shown_and_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunLog(LoopConfig(str(tmp_path)), StopSignals("stopping")).say(f"    | a{TITLE}b\n    | c")
    assert capsys.readouterr().out == "    | a␛]0;pwn␇b\n    | c\n"


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
