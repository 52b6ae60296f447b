"""Stages: output and exit code are kept, and no stage outlives its limit, whatever it started."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from benchmarking import stages
from benchmarking.stages import run_stage

FAR = 60.0


def test_the_output_of_a_stage_is_shown_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print('one'); print(sys.argv[1], file=sys.stderr); sys.exit(3)")
    stage = run_stage("a stage", (str(script), "two"), FAR)
    assert sorted(stage.output.split()) == ["one", "two"]
    assert capsys.readouterr().out == f"\na stage\n$ python {script} two\n{stage.output}"
    assert (stage.exit_code, stage.is_cut) == (3, False)
    assert stage.describe_end() in ("failed with exit code 3: one", "failed with exit code 3: two")
    assert run_stage("", ("-c", "pass"), FAR).describe_end() == ""


def test_a_stage_is_asked_to_stop_at_its_limit() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    code = "import time\ntry:\n    print('begun')\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('saved')"
    stage = run_stage("", ("-c", code), 3.0)
    assert signal.signal(signal.SIGINT, before) == signal.SIG_IGN
    assert stage.output == "begun\nsaved\n"
    assert stage.describe_end().endswith("was stopped after 3 s")


def test_a_stage_that_does_not_stop_is_killed_with_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "GRACE_SECONDS", 0.5)
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('child', flush=True); time.sleep(60)"
    code = f"import subprocess, sys; process = subprocess.Popen([sys.executable, '-c', {child!r}]); print(process.pid); process.wait()"
    stage = run_stage("", ("-c", code), 3.0)
    assert stage.is_cut
    pid = next(int(line) for line in stage.output.splitlines() if line.isdigit())
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise AssertionError("the child is still there")
