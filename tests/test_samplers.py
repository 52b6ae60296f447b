"""Both samplers as a person uses them: through a real pseudo-terminal, a pipe, a command."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from tests.conftest import ROOT, fails_with, run_script

ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])")
WAIT = 60


def plain(text: str) -> str:
    """What is left to read without what moves the cursor."""
    return ESCAPE.sub("", text).replace("\r", "")


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
        timeout=WAIT,
    )
    try:
        yield child
    finally:
        child.close(force=True)


def turn(child: "pexpect.spawn[str]", line: str, label: str) -> str:
    """What appears between a line and the next prompt."""
    child.sendline(line)
    child.expect_exact(f"\n{label}> ")
    return plain(child.before or "")


def leave(child: "pexpect.spawn[str]") -> None:
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before


@pytest.mark.parametrize("columns", [20, 80])
def test_a_conversation_about_endings(checkpoints: dict[str, Path], tmp_path: Path, columns: int) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 12]
    with terminal("sample_xcoax.py", *flags, state=tmp_path, columns=columns) as child:
        child.expect_exact("ending> ")
        first, second = (turn(child, "the cat sleeps", "ending") for _ in range(2))
        for text in (first, second):
            assert re.search(r"the\s+cat\s+sleeps\s+\d+\s+tokens\s+in", text), text
        assert first != second  # two turns with the same prompt differ
        assert "seed=7" in turn(child, "seed=7", "ending")
        texts = [re.sub(r"\d+\s+tokens\s+in.*", "", turn(child, "the cat sleeps", "ending"), flags=re.DOTALL) for _ in range(2)]
        assert texts[0] == texts[1]  # a seed that was set repeats
        leave(child)


def test_commands_say_what_is_allowed_and_a_bad_value_changes_nothing(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with terminal("sample_xcoax.py", "--model-path", checkpoints["pretraining"], state=tmp_path, columns=200) as child:
        child.expect_exact("ending> ")
        before = turn(child, "settings", "ending")
        assert "temp=0.7  top_k=0  top_p=1.0  min_p=0.0  tokens=200  samples=1  seed=off  raw is off" in before
        for line, answer in [
            ("temp=-1", "temp=-1.0: 0 or more; nothing is changed"),
            ("temp=nan", "temp=nan: 0 or more"),
            ("temp=hot", "temp=hot: a number is expected; nothing is changed"),
            ("top_k=-3", "top_k=-3: 0 (off) or more"),
            ("top_k=1.5", "top_k=1.5: a whole number is expected"),
            ("top_p=0", "top_p=0.0: above 0, up to 1 (off)"),
            ("min_p=2", "min_p=2.0: from 0 (off) to 1"),
            ("tokens=-1", "tokens=-1: 0 or more"),
            ("samples=0", "samples=0: from 1 to 1000"),
            ("samples=1" + "0" * 400, "from 1 to 1000"),
            ("seed=x", "seed=x: a whole number is expected"),
            ("tmp=1", "there is no tmp; perhaps temp?"),
            ("temprature=1", "there is no temprature; perhaps temp?"),
            ("max-new-tokens=9", "there is no max_new_tokens; perhaps tokens?"),
            ("setings", "perhaps settings? As a text to write of, begin it with a space"),
        ]:
            assert answer in turn(child, line, "ending"), line
        assert turn(child, "settings", "ending").split("settings")[1] == before.split("settings")[1]
        for line in ("temp 0", "TOP_K = 0", "top_k=99999", "top_p=0.9", "min_p=0.1", "tokens=5", "samples=2", "seed 3", "raw=off", "raw"):
            assert "expected" not in turn(child, line, "ending")
        after = turn(child, "settings", "ending")
        assert "temp=0.0  top_k=99999  top_p=0.9  min_p=0.1  tokens=5  samples=2  seed=3  raw is on" in after
        assert "sleeps cat the" in turn(child, "the cat sleeps", "ending")  # raw: the model's own order
        assert "a b help" in turn(child, "raw", "ending") + turn(child, " a b help", "ending")
        assert "tokens=0" in turn(child, "tokens=0", "ending")
        assert "the end\n0 tokens" in turn(child, "the end", "ending").replace("\n\n", "\n")
        assert "Ctrl-D" in turn(child, "help", "ending")
        child.sendline("")
        child.sendline("   ")
        child.sendline("quit")
        child.expect(pexpect.EOF)


def test_ctrl_c_stops_the_writing_and_keeps_what_is_there(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--num-samples", 999, "--max-new-tokens", 400]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("ending> ")
        child.sendintr()
        child.expect_exact("Ctrl-D leaves")
        child.expect_exact("ending> ")
        child.sendline("the cat sleeps")
        child.expect("sleeps.*sleeps")  # the line as it was typed, and a text that grows
        child.setwinsize(30, 40)
        child.sendintr()
        child.expect_exact("by Ctrl-C")
        assert plain(child.before or "").replace("\n", " ").count("the cat sleeps") >= 1
        child.expect_exact("\nending> ")
        leave(child)


def test_many_lines_can_be_pasted_and_history_is_kept(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 3]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("ending> ")
        child.send("\x1b[200~one day\nthe cat\nsleeps\x1b[201~\r")
        child.expect_exact("tokens in")
        assert re.search(r"one day\nthe cat\nsleeps\n\d+ $", plain(child.before or ""))
        child.expect_exact("ending> ")
        child.send("first line\nsecond line\n")  # as a terminal without bracketed paste sends it
        child.expect_exact("tokens in")
        assert re.search(r"first line\nsecond line\n\d+ $", plain(child.before or ""))
        child.expect_exact("ending> ")
        child.send("\x1b[200~samples=2\nprint(samples)\x1b[201~\r")  # what is marked as pasted is a text, whatever it looks like
        child.expect(r"\d tokens in")
        assert re.search(r"samples=2\nprint\(samples\)\n\d* ?$", plain(child.before or ""))
        child.expect_exact("ending> ")
        child.send("temps=2\nprint(temps)\n")  # nearly a command, but not alone
        child.expect(r"\d tokens in")
        assert re.search(r"temps=2\nprint\(temps\)\n\d* ?$", plain(child.before or ""))
        child.expect_exact("ending> ")
        child.send("samples=2\ntokens=2\none day\n")  # typed ahead, commands are commands
        child.expect(r"\d tokens in")
        assert "[1/2]" in (child.before or "") and "[2/2]" in (child.before or "")
        child.expect_exact("ending> ")
        child.send("samples=1\nremember me\n")
        child.expect(r"\d tokens in")
        child.expect_exact("ending> ")
        child.send("the last one\n\x04")  # who is quick with Ctrl-D is heard
        child.expect(pexpect.EOF)
        assert re.search(r"\d tokens in", child.before or "")
    assert "remember me" in (tmp_path / "backgpt" / "ending.history").read_text(encoding="utf-8")
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect_exact("ending> ")
        child.send("\x1b[A\r")  # the key that goes up
        child.expect_exact("tokens in")
        assert "the last one" in plain(child.before or "")


def test_a_plain_terminal_gets_plain_text(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 9]
    for name, value in (("TERM", "dumb"), ("NO_COLOR", "1")):
        with terminal("sample_xcoax.py", *flags, state=tmp_path, variables={name: value}) as child:
            child.expect_exact("ending> ")
            child.sendline("the cat sleeps")
            child.expect_exact("tokens in")
            seen = child.before or ""
            assert not re.search(r"\x1b\[[0-9;]*[3-9][0-9]*m", seen)  # no colour
            assert name != "TERM" or "\x1b" not in seen
            child.expect_exact("ending> ")
            leave(child)


def test_a_conversation_about_responses(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["tuning"], "--max-new-tokens", 9, "--num-samples", 4]
    with terminal("sample_xcoax_instruct.py", *flags, state=tmp_path) as child:
        child.expect_exact("response> ")
        text = turn(child, "The cat is sleeping.", "response")
        scores = [float(score) for score in re.findall(r"^(-\d+\.\d{3}) ", text, flags=re.MULTILINE)]
        assert len(scores) == 4
        assert scores == sorted(scores, reverse=True)  # best first
        assert "tokens/s" in text
        leave(child)


def test_what_is_written_cannot_drive_the_terminal(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    evil = "a \x1b]0;title\x07 \x1b[2J \x9b31m \u202e b"
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 2, "--prompt", evil]
    with terminal("sample_xcoax.py", *flags, state=tmp_path) as child:
        child.expect(pexpect.EOF)
        seen = child.before or ""
        assert "\x1b]0;" not in seen and "\x07" not in seen and "\x1b[2J" not in seen and "\x9b" not in seen and "\u202e" not in seen
        assert "␛]0;title␇ ␛[2J" in plain(seen)


def test_one_shot_and_pipes(checkpoints: dict[str, Path]) -> None:
    common = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 5, "--seed", 1]
    result = run_script("sample_xcoax.py", *common, "--prompt", "The end.", "--num-samples", 3)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("The end.\n") == 3
    assert run_script("sample_xcoax.py", *common, "--prompt", "The end.", "--num-samples", 3).stdout == result.stdout
    alike = ["--response", "x", "--num-samples", 3, "--temperature", 0, "--max-new-tokens", 1]
    alike_lines = run_script("sample_xcoax_instruct.py", "--model-path", checkpoints["tuning"], *alike).stdout.splitlines()
    assert len(alike_lines) == 3 and len(set(alike_lines)) == 1  # equal ones are folded at a terminal only
    for script, stage in (("sample_xcoax.py", "pretraining"), ("sample_xcoax_instruct.py", "tuning")):
        command = [sys.executable, str(ROOT / script), *map(str, common[2:]), "--model-path", str(checkpoints[stage])]
        piped = subprocess.run(command, input=b"One end.\n\n \nbad \xff bytes\nlast 7", capture_output=True, check=False)
        assert (piped.returncode, piped.stderr) == (0, b"")
        if stage == "pretraining":
            ends = [line[-8:] for line in piped.stdout.splitlines() if line.endswith((b"One end.", b" bytes", b"last 7"))]
            assert [end.split()[-1] for end in ends] == [b"end.", b"bytes", b"7"]
        else:
            alone = [
                run_script(script, *common[2:], "--model-path", checkpoints[stage], "--response", response).stdout
                for response in ("One end.", "bad \ufffd bytes", "last 7")
            ]
            assert piped.stdout.decode() == "".join(alone)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--temperature -1", "--temperature -1.0: 0 or more"),
        ("--temperature nan", "--temperature nan"),
        ("--top-k -1", "--top-k -1"),
        ("--top-p 0", "--top-p 0.0"),
        ("--min-p 2", "--min-p 2.0"),
        ("--num-samples 0", "--num-samples 0"),
        ("--max-new-tokens -1", "--max-new-tokens -1"),
    ],
)
def test_impossible_settings_are_refused(checkpoints: dict[str, Path], flags: str, part: str) -> None:
    fails_with(run_script("sample_xcoax.py", "--model-path", checkpoints["pretraining"], *flags.split()), 2, part)


def test_odd_prompts_are_written_towards(checkpoints: dict[str, Path]) -> None:
    prompts = ["<|im_end|><|endoftext|> end", "日本語 🙂 עברית العربية", "word " * 400 + "end", "x" * 5000]
    common = [ROOT / "sample_xcoax.py", "--model-path", checkpoints["pretraining"], "--max-new-tokens", 4]
    for extra in (["--temperature", 0], ["--top-k", 99_999], ["--quantize", "int8"]):
        command = [sys.executable, *map(str, [*common, *extra])]
        result = subprocess.run(command, input="\n".join(prompts), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert all(f"{prompt}\n" in result.stdout for prompt in prompts)
        assert result.stderr.count("leave no room to write in the context of 512") == 2


def test_a_response_of_any_length_is_answered(checkpoints: dict[str, Path]) -> None:
    long = run_script("sample_xcoax_instruct.py", "--model-path", checkpoints["tuning"], "--response", "y " * 50_000, "--max-new-tokens", 4)
    assert long.returncode == 0, long.stderr
    assert "too long for the context" in long.stderr
    empty = run_script("sample_xcoax_instruct.py", "--model-path", checkpoints["tuning"], "--response", " \t")
    fails_with(empty, 1, "an empty response")


def test_wrong_checkpoints_are_one_line(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for script, name, command in (
        ("sample_xcoax.py", "xcoax", "python train_xcoax.py"),
        ("sample_xcoax_instruct.py", "instruct", "python finetune_xcoax.py"),
    ):
        result = subprocess.run(
            [sys.executable, str(ROOT / script)], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        fails_with(result, 1, f"no checkpoint at out/{name}/best_checkpoint.pt. Run: {command}")
    flags = ["--response", "x", "--model-path", checkpoints["pretraining"]]
    fails_with(run_script("sample_xcoax_instruct.py", *flags), 1, "was pretrained and not tuned", "python finetune_xcoax.py --model-path")
    tuned = run_script("sample_xcoax.py", "--prompt", "x", "--model-path", checkpoints["tuning"], "--max-new-tokens", 2)
    assert tuned.returncode == 0
    assert "was tuned on instructions" in tuned.stderr
    damaged = tmp_path / "best_checkpoint.pt"
    damaged.write_bytes(checkpoints["tuning"].read_bytes()[:-3000])
    fails_with(run_script("sample_xcoax_instruct.py", "--response", "x", "--model-path", damaged), 1, "is damaged; nothing in it was run")
