"""Stages: output and exit code are kept, and no stage outlives its limit, whatever it started."""

import signal
import threading
from pathlib import Path

import pytest

from benchmarking import stages
from benchmarking.stages import run_stage

FAR = 600.0


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that a stage makes when its limit may come: until then its time stands still, however slow the machine is."""
    path = tmp_path / "begun"

    class TimerAfter(threading.Timer):
        def run(self) -> None:
            while not path.exists() and not self.finished.wait(0.01):
                pass
            super().run()

    monkeypatch.setattr(threading, "Timer", TimerAfter)
    return path


def test_the_output_of_a_stage_is_shown_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print('one'); print(sys.argv[1], file=sys.stderr); sys.exit(3)")
    stage = run_stage("a stage", (str(script), "two"), FAR)
    assert sorted(stage.output.split()) == ["one", "two"]
    assert capsys.readouterr().out == f"\na stage\n$ python {script} two\n{stage.output}"
    assert (stage.exit_code, stage.is_cut) == (3, False)
    assert stage.describe_end() in ("failed with exit code 3: one", "failed with exit code 3: two")
    assert run_stage("", ("-c", "pass"), FAR).describe_end() == ""


def test_a_stage_is_asked_to_stop_at_its_limit(begun: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    code = f"import time\ntry:\n    open({str(begun)!r}, 'x')\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('saved')"
    stage = run_stage("", ("-c", code), 0.0)
    assert signal.signal(signal.SIGINT, before) == signal.SIG_IGN
    assert stage.output == "saved\n"
    assert stage.describe_end().endswith(f"was stopped after {stage.seconds:.0f} s")


def test_a_stage_that_does_not_stop_is_killed_with_what_it_started(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "GRACE_SECONDS", 0.5)
    child = (
        f"import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); open({str(begun)!r}, 'x'); time.sleep(60); print('survived')"
    )
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    stage = run_stage("", ("-c", code), 0.0)  # returns when nobody is left that could print
    assert stage.is_cut
    assert "survived" not in stage.output
