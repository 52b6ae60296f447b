"""Ctrl-C, Ctrl-Z and SIGTERM at the prompt and while a text grows."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pexpect
import pytest

from config import SampleConfig
from sampling.engine import Request, TokenEvent
from sampling.terminal_sampler import TerminalSampler
from system.live_text import ENTER, LEAVE
from system.signals import Interrupt, suspending
from system.terminal import Screen
from tests.sampling.test_repl import leave, plain, terminal


def test_ctrl_c_stops_a_text_and_keeps_what_is_generated(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--num-samples", 999, "--max-new-tokens", 400]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("Prompt: ")
        child.sendintr()
        child.expect_exact("Press Ctrl-D to leave")
        child.expect_exact("Prompt: ")
        child.send("the cat")
        child.expect_exact("the cat")
        child.sendcontrol("z")  # without a shell that could continue it the process is not stopped
        child.expect_exact("Prompt: the cat")
        child.sendline(" sleeps")
        child.expect("sleeps.*sleeps")  # the typed line, and a text that grows
        child.sendcontrol("z")
        child.expect_exact(LEAVE)
        child.expect_exact(ENTER)
        child.expect("sleeps")
        child.setwinsize(30, 40)
        child.sendintr()
        child.expect_exact("by Ctrl-C")
        assert plain(child.before or "").replace("\n", " ").count("the cat sleeps") >= 1
        child.expect_exact("\nPrompt: ")
        leave(child)


def test_a_pace_draws_whole_words_and_ctrl_c_keeps_those(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 400, "--pace", 2, "--seed", 1]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("Prompt: ")
        child.sendline("the cat sleeps")
        child.expect("cat sleeps.*cat sleeps.*cat sleeps")  # the typed line and two frames
        child.sendintr()
        child.expect_exact("stopped by Ctrl-C")
        kept = plain(child.before or "").split("Output:")[-1].split(" words in")[0].split()
        assert "sleeps" in kept and len(kept) < 30  # of the hundreds that the model has written by then
        child.expect_exact("\nPrompt: ")
        leave(child)


def test_sigterm_leaves_the_terminal_as_it_was(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 400, "--pace", 1]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("Prompt: ")
        child.sendline("the cat sleeps")
        child.expect("cat sleeps.*cat sleeps")  # the typed line and a frame
        child.kill(signal.SIGTERM)
        child.expect_exact("\x1b[?1049l")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 143


def test_the_time_in_which_ctrl_z_stopped_the_process_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def stop_for_an_hour(number: int) -> None:
        nonlocal now
        now += 3600

    def events(*_: object) -> Iterator[TokenEvent]:
        nonlocal now
        now += 2
        os.kill(os.getpid(), signal.SIGTSTP)
        yield TokenEvent(0, 0, 5, -1.0, "stop")

    monkeypatch.setattr(signal, "raise_signal", stop_for_an_hour)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr("sampling.terminal_sampler.generate_past_context", events)
    engine = SimpleNamespace(pop_warning=str, model=SimpleNamespace(config=SimpleNamespace(block_size=8)))
    prompter = SimpleNamespace(
        request=lambda *_: (Request([1], 1), ""), stop_ids=frozenset(), crop=None, text=lambda given, ids, raw: "the end"
    )
    sampler = TerminalSampler(Screen(), engine, prompter, best_first=False, grows_left=True)  # type: ignore[arg-type]
    with suspending(lambda: None, lambda: None):  # or a failure would stop the tests themselves
        report = sampler.generate("end", SampleConfig(), Interrupt()).report
    assert report.startswith("1 token in 2.0 s, 0 tokens/s")
