"""Both samplers without a person: one text for a flag, or one for each line of a pipe."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, call_script, fails_with


def test_a_flag_gives_one_answer_and_a_seed_repeats_it(checkpoints: dict[str, Path]) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 5, "--seed", 1, "--prompt", "The end.", "--num-samples", 3]
    result = call_script("sample_xcoax.py", *flags)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("The end.\n") == 3
    assert call_script("sample_xcoax.py", *flags).stdout == result.stdout


def test_a_program_gets_equal_texts_as_separate_lines(checkpoints: dict[str, Path]) -> None:
    flags = ["--response", "x", "--num-samples", 3, "--temperature", 0, "--max-new-tokens", 1]
    lines = call_script("sample_xcoax_instruct.py", "--model-path", checkpoints["tuning"], *flags).stdout.splitlines()
    assert len(lines) == 3 and len(set(lines)) == 1


def test_each_line_of_a_pipe_gets_a_text(checkpoints: dict[str, Path]) -> None:
    common = ["--max-new-tokens", "5", "--seed", "1", "--model-path"]
    lines = b"One end.\n\n \nbad \xff bytes\nlast 7"
    outputs = {}
    for script, stage in (("sample_xcoax.py", "pretraining"), ("sample_xcoax_instruct.py", "tuning")):
        command = [sys.executable, str(ROOT / script), *common, str(checkpoints[stage])]
        piped = subprocess.run(command, input=lines, capture_output=True, check=False)
        assert (piped.returncode, piped.stderr) == (0, b"")
        outputs[stage] = piped.stdout
    ends = [line[-8:] for line in outputs["pretraining"].splitlines() if line.endswith((b"One end.", b" bytes", b"last 7"))]
    assert [end.split()[-1] for end in ends] == [b"end.", b"bytes", b"7"]
    alone = [
        call_script("sample_xcoax_instruct.py", *common, checkpoints["tuning"], "--response", response).stdout
        for response in ("One end.", "bad \ufffd bytes", "last 7")
    ]
    assert outputs["tuning"].decode() == "".join(alone)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("--temperature -1", "--temperature -1.0: from 0 to 10"),
        ("--temperature nan", "--temperature nan"),
        ("--top-k -1", "--top-k -1"),
        ("--top-p 0", "--top-p 0.0"),
        ("--min-p 2", "--min-p 2.0"),
        ("--num-samples 0", "--num-samples 0"),
        ("--max-new-tokens -1", "--max-new-tokens -1"),
    ],
)
def test_impossible_settings_are_refused(checkpoints: dict[str, Path], flags: str, part: str) -> None:
    fails_with(call_script("sample_xcoax.py", "--model-path", checkpoints["pretraining"], *flags.split()), 2, part)


@pytest.mark.parametrize("extra", [("--temperature", 0), ("--top-k", 60_000), ("--quantize", "int8")])
def test_unusual_prompts_stay_at_the_end(checkpoints: dict[str, Path], extra: tuple[object, ...]) -> None:
    prompts = ["<|im_end|><|endoftext|> end", "日本語 🙂 עברית العربية", "word " * 400 + "end", "x" * 5000]
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 4, *extra]
    result = call_script("sample_xcoax.py", *flags, stdin="\n".join(prompts))
    assert result.returncode == 0, result.stderr
    assert all(f"{prompt}\n" in result.stdout for prompt in prompts)
    assert result.stderr.count("leave no room in the context of 512") == 2


def test_a_response_of_any_length_gets_an_instruction(checkpoints: dict[str, Path]) -> None:
    flags = ["--model-path", checkpoints["tuning"], "--max-new-tokens", 4]
    long = call_script("sample_xcoax_instruct.py", *flags, "--response", "y " * 50_000)
    assert long.returncode == 0, long.stderr
    assert "too long for the context" in long.stderr
    fails_with(call_script("sample_xcoax_instruct.py", *flags, "--response", " \t"), 1, "an empty response")
