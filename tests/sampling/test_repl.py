"""The interactive prompt as a person uses it, in a real pseudo-terminal."""

import io
import os
import pty
import re
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pexpect
import pytest

from config import SampleConfig
from sampling.prompt_settings import PromptSettings
from sampling.repl import read_lines, run_repl
from system.keyboard import hidden_typing
from system.signals import Interrupt
from system.terminal import Screen
from system.version import version_line
from tests.conftest import ROOT

ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])")
ALTERNATE_SCREEN = re.compile(r"\x1b\[\?1049h.*?\x1b\[\?1049l", flags=re.DOTALL)
TIMEOUT_SECONDS = 60


def plain(text: str) -> str:
    """The text of the normal screen, without the sequences that move the cursor."""
    return ESCAPE.sub("", ALTERNATE_SCREEN.sub("", text)).replace("\r", "")


@contextmanager
def terminal(
    script: str, *flags: object, state: Path, columns: int = 80, variables: dict[str, str] | None = None
) -> Iterator["pexpect.spawn[str]"]:
    """A sampler in a terminal of its own."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    child = pexpect.spawn(
        sys.executable,
        [str(ROOT / script), *map(str, flags)],
        env={**inherited, "TERM": "xterm-256color", "XDG_STATE_HOME": str(state), "OMP_NUM_THREADS": "1", **(variables or {})},
        encoding="utf-8",
        dimensions=(24, columns),
        timeout=TIMEOUT_SECONDS,
    )
    try:
        yield child
    finally:
        child.close(force=True)


def answer(child: "pexpect.spawn[str]", line: str, label: str) -> str:
    """What appears between a line and the next prompt."""
    child.sendline(line)
    child.expect_exact(f"\n{label}: ")
    return plain(child.before or "")


def leave(child: "pexpect.spawn[str]") -> None:
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before


@pytest.mark.parametrize("columns", [20, 80])
def test_endings_get_texts_that_differ_until_a_seed_is_set(checkpoints: dict[str, Path], tmp_path: Path, columns: int) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 12]
    with terminal("sample_xcoax.py", *flags, state=tmp_path, columns=columns) as child:
        child.expect_exact("Prompt: ")
        first, second = (answer(child, "the cat sleeps", "Prompt") for _ in range(2))
        for text in (first, second):
            assert re.search(r"the\s+cat\s+sleeps\s+\d+\s+tokens\s+in", text), text
        assert first != second
        assert "seed=7" in answer(child, "seed=7", "Prompt")
        texts = [re.sub(r"\d+\s+tokens\s+in.*", "", answer(child, "the cat sleeps", "Prompt"), flags=re.DOTALL) for _ in range(2)]
        assert texts[0] == texts[1]
        leave(child)


def test_commands_work_at_the_prompt(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with terminal("sample_xcoax.py", "--model-path", checkpoints["pretraining"], state=tmp_path, columns=200) as child:
        child.expect_exact("Prompt: ")
        before = answer(child, "settings", "Prompt")
        assert "temp=0.8  top_k=200  top_p=1.0  min_p=0.0  tokens=500  samples=1  seed=off  pace=0.0  raw is off" in before
        assert "temp=hot: expected a number; nothing changed" in answer(child, "temp=hot", "Prompt")
        assert "no setting tmp; did you mean temp?" in answer(child, "tmp=1", "Prompt")
        assert answer(child, "settings", "Prompt").split("settings")[1] == before.split("settings")[1]
        for line in ("temp 0", "tokens=5", "samples=2", "raw"):
            assert "expected" not in answer(child, line, "Prompt")
        assert "sleeps cat the" in answer(child, "the cat sleeps", "Prompt")  # the order of the model
        assert "a b help" in answer(child, "raw", "Prompt") + answer(child, " a b help", "Prompt")
        assert "tokens=0" in answer(child, "tokens=0", "Prompt")
        assert "samples=1" in answer(child, "samples=1", "Prompt")
        assert "the end\n0 tokens" in answer(child, "the end", "Prompt").replace("\n\n", "\n")
        assert "Ctrl-D" in answer(child, "help", "Prompt")
        child.sendline("")
        child.sendline("   ")
        child.sendline("quit")
        child.expect(pexpect.EOF)


def test_several_lines_can_be_pasted_and_the_history_is_kept(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 3]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("Prompt: ")
        child.send("\x1b[200~one day\nthe cat\nsleeps\x1b[201~\r")
        child.expect_exact("tokens in")
        assert re.search(r"one day\nthe cat\nsleeps\n\d+ $", plain(child.before or ""))
        child.expect_exact("Prompt: ")
        child.send("first line\nsecond line\n")  # typed ahead: each line is a prompt of its own
        for line in ("first line", "second line"):
            child.expect_exact("tokens in")
            assert re.search(rf"Output:\n.*{line}\n\d+ $", plain(child.before or ""), flags=re.DOTALL)
            assert "line\n" + "second line\n" not in plain(child.before or "")
            child.expect_exact("Prompt: ")
        child.send("\x1b[200~samples=2\nprint(samples)\x1b[201~\r")  # marked as pasted: a text, even if it looks like a command
        child.expect(r"\d tokens in")
        assert re.search(r"samples=2\nprint\(samples\)\n\d* ?$", plain(child.before or ""))
        child.expect_exact("Prompt: ")
        child.send("\x1b[200~temps=2\nprint(temps)\x1b[201~\r")  # nearly a command, but not alone
        child.expect(r"\d tokens in")
        assert re.search(r"temps=2\nprint\(temps\)\n\d* ?$", plain(child.before or ""))
        child.expect_exact("Prompt: ")
        child.send("samples=2\ntokens=2\none day\n")  # typed ahead: the commands are run
        child.expect(r"\d tokens in")
        assert "[1/2]" in (child.before or "") and "[2/2]" in (child.before or "")
        child.expect_exact("Prompt: ")
        child.send("samples=1\nremember me\n")
        child.expect(r"\d tokens in")
        child.expect_exact("Prompt: ")
        child.send("the last one\n\x04")  # Ctrl-D typed ahead
        child.expect(pexpect.EOF)
        assert re.search(r"\d tokens in", child.before or "")
    assert "remember me" in (tmp_path / "backgpt" / "prompt.history").read_text(encoding="utf-8")
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("Prompt: ")
        child.send("\x1b[A\r")  # arrow up
        child.expect_exact("tokens in")
        assert "the last one" in plain(child.before or "")


def test_a_plain_terminal_gets_plain_text(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 9]
    for name, value in (("TERM", "dumb"), ("NO_COLOR", "1")):
        with terminal("sample_xcoax.py", *flags, state=tmp_path, variables={name: value}) as child:
            child.send("the cat sleeps\na dog runs\n")  # typed ahead: two prompts, also where the terminal does not mark what is pasted
            child.expect_exact("tokens in")
            child.expect_exact("a dog runs")
            child.expect_exact("tokens in")
            seen = child.before or ""
            assert not re.search(r"\x1b\[[0-9;]*[3-9][0-9]*m", seen)  # no color
            assert name != "TERM" or "\x1b" not in seen
            child.expect_exact("Prompt: ")
            leave(child)


def test_responses_get_instructions_best_first(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["tuning"], "--max-new-tokens", 9, "--num-samples", 4]
    with terminal("sample_xcoax_instruct.py", *flags, state=tmp_path) as child:
        child.expect_exact("Response: ")
        text = answer(child, "The cat is sleeping.", "Response")
        scores = [float(score) for score in re.findall(r"^(-\d+\.\d{3}) ", text, flags=re.MULTILINE)]
        assert len(scores) == 4, text
        assert scores == sorted(scores, reverse=True)
        assert "tokens/s" in text
        leave(child)


def test_generated_text_cannot_control_the_terminal(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    hostile = "a \x1b]0;title\x07 \x1b[2J \x9b31m \u202e b"
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 2, "--prompt", hostile]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect(pexpect.EOF)
        seen = child.before or ""
        assert not any(part in seen for part in ("\x1b]0;", "\x07", "\x1b[2J", "\x9b", "\u202e"))
        assert "␛]0;title␇ ␛[2J" in plain(seen)


def test_the_non_empty_lines_of_a_pipe_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"One end.\r\n\n \nbad \xff bytes\nlast 7"), "utf-8"))
    assert list(read_lines()) == ["One end.", "bad \ufffd bytes", "last 7"]
    monkeypatch.setattr(sys, "stdin", None)
    assert list(read_lines()) == []


def test_there_is_no_echo_while_a_text_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, terminal = pty.openpty()
    lines = iter(["temp=0.9", "The end."])
    echoes = []

    def type_line(label: str = "") -> str:
        note_echo()
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    def note_echo(line: str = "", interrupt: Interrupt | None = None) -> None:
        echoes.append(bool(termios.tcgetattr(terminal)[3] & termios.ECHO))

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("builtins.input", type_line)
    with os.fdopen(keyboard, "wb"), os.fdopen(terminal, encoding="utf-8") as stdin, os.fdopen(os.dup(terminal), "w") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        session = SimpleNamespace(screen=Screen(), settings=PromptSettings(SampleConfig()), command=note_echo, generate=note_echo)
        with hidden_typing():
            run_repl(session, "Ending", "Hello")  # type: ignore[arg-type]
    assert echoes == [True, False, True, False, False, True]  # at a prompt, after its line, and while a text is generated


def test_a_session_goes_on_from_what_was_written(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 6, "--num-samples", 2, "--seed", 5]
    with terminal("sample_xcoax.py", *flags, state=tmp_path, columns=200) as child:
        child.expect_exact("Prompt: ")
        assert "nothing has been written yet" in answer(child, "/more", "Prompt")
        first = answer(child, "the cat sleeps", "Prompt")
        texts = re.findall(r"^\[\d/2\]\n((?:.*\n)*?)(?=\n\[|\d+ tokens)", first, flags=re.MULTILINE)
        assert len(texts) == 2 and all(text.rstrip().endswith("the cat sleeps") for text in texts)
        again = answer(child, "/again", "Prompt")
        assert "seed 5" in first and "seed 5\n" not in again and "the cat sleeps" in again  # the same seed would repeat the texts
        answer(child, "/undo", "Prompt")
        assert "a number from 1 to 2" in answer(child, "/pick 3", "Prompt")
        assert "text 2 stands" in answer(child, "/pick 2", "Prompt")
        more = answer(child, "/more", "Prompt")
        assert more.count(texts[1].strip().splitlines()[-1]) >= 2
        assert texts[1].split()[-3:] == answer(child, "/undo", "Prompt").split()[-3:]
        for name, kind in (("session.txt", "save"), ("text.svg", "picture")):
            assert f"saved {tmp_path / name}" in answer(child, f"/{kind} {tmp_path / name}", "Prompt")
        assert "ends with .svg" in answer(child, "/picture text.png", "Prompt")
        (tmp_path / "mine.txt").write_text("mine")
        assert "mine.txt already exists" in answer(child, f"/save {tmp_path / 'mine.txt'}", "Prompt")
        answer(child, "/clear", "Prompt")
        leave(child)
    transcript = (tmp_path / "session.txt").read_text(encoding="utf-8")
    assert all(
        part in transcript.split("\n\n")[0] for part in (f"{checkpoints['pretraining']}, step ", version_line(), "--seed 5", "torch")
    )
    assert re.findall(r"^Prompt: the cat sleeps\n\nOutput:\n", transcript, flags=re.MULTILINE)
    settings = r"temp=0.8 top_k=200 top_p=1.0 min_p=0.0 tokens=6 samples=2 seed=(\d+) raw=off"
    seeds = re.findall(rf"seed (\d+)\n{settings}$", transcript, flags=re.MULTILINE)
    assert len(seeds) == 3 and seeds[0] == ("5", "5") and all(shown == typed for shown, typed in seeds)
    assert "bits of surprise" in (tmp_path / "text.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_pasted_poem_comes_back_whole_in_another_session(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 2]
    for keys in ("\x1b[200~one day\nthe cat\nsleeps\x1b[201~\r", "\x1b[A\r"):
        with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
            child.expect_exact("Prompt: ")
            child.send(keys)
            child.expect_exact("tokens in")
            assert "one day\nthe cat\nsleeps\n" in plain(child.before or "")
            child.expect_exact("\nPrompt: ")
            leave(child)


def test_more_goes_on_in_the_order_of_a_reader_while_that_of_the_model_is_shown(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 0, "--raw"]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("Prompt: ")
        assert "d c b a" in answer(child, "a b c d", "Prompt")
        assert "d c b a" in answer(child, "/more", "Prompt")
        leave(child)
