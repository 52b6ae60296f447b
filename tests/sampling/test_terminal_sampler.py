"""Both samplers without a person: one text for a flag, or one for each line of a pipe."""

import json
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.conftest import ROOT, call_script, fails_with
from tests.sampling.test_repl import terminal


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


def test_texts_of_several_prompts_are_divided_and_instructions_are_lines(checkpoints: dict[str, Path]) -> None:
    common = ["--max-new-tokens", 4, "--temperature", 0, "--model-path"]
    prompts = ["One end.", "Another end."]
    for extra in ([], ["--num-samples", 2]):
        flags = [*common, checkpoints["pretraining"], *extra]
        alone = [call_script("sample_xcoax.py", *flags, "--prompt", prompt).stdout for prompt in prompts]
        assert call_script("sample_xcoax.py", *flags, stdin="\n".join(prompts)).stdout == "---\n".join(alone)
    assert "---" not in call_script("sample_xcoax_instruct.py", *common, checkpoints["tuning"], stdin="\n".join(prompts)).stdout


SCRIPTS = {
    "sample_xcoax.py": ("pretraining", "prompt", "generated_text"),
    "sample_xcoax_instruct.py": ("tuning", "response", "generated_instruction"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_program_gets_a_json_object_for_each_text(checkpoints: dict[str, Path], script: str) -> None:
    stage, given, generated = SCRIPTS[script]
    flags = ["--model-path", checkpoints[stage], "--max-new-tokens", 5, "--format", "jsonl"]
    result = call_script(script, *flags, "--num-samples", 2, stdin=f"One end.\n{'long ' * 900}end\n")
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1  # the second is too long
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row[given][-4:] for row in rows] == ["end.", "end.", " end", " end"]
    for row in rows:
        assert list(row) == [given, generated, "logprob_per_token", "tokens", "complete", "seed"]
        assert row["logprob_per_token"] < 0 < row["tokens"] <= 5
    if stage == "pretraining":
        assert all(row[generated].endswith(row[given]) for row in rows)
    else:
        assert rows[0]["logprob_per_token"] >= rows[1]["logprob_per_token"]
    first = call_script(script, *flags, "--num-samples", 2, "--seed", rows[0]["seed"], f"--{given}", "One end.")
    assert [json.loads(line) for line in first.stdout.splitlines()] == rows[:2]  # the seed repeats them


def test_json_for_a_person_at_a_terminal(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Nothing else is on the screen; and without a text there is no prompt to type at."""
    flags = ["--model-path", checkpoints["tuning"], "--max-new-tokens", 5, "--format", "jsonl"]
    with terminal("sample_xcoax_instruct.py", *flags, "--response", "x", state=tmp_path, columns=400) as child:
        child.expect(pexpect.EOF)
        assert json.loads(child.before or "")["response"] == "x"
    with terminal("sample_xcoax_instruct.py", *flags, state=tmp_path, columns=400) as child:
        child.expect_exact("--format jsonl: give a text with --response, or lines in a pipe")


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


def test_what_the_model_or_the_folder_does_not_allow_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "mine.svg"
    picture.write_text("mine")
    flags = ["--model-path", checkpoints["tuning"], "--response", "x"]
    fails_with(call_script("sample_xcoax_instruct.py", *flags, "--picture", picture), 2, f"--picture {picture} already exists. Use another")
    assert picture.read_text() == "mine"
    too_many = call_script("sample_xcoax_instruct.py", *flags, "--max-new-tokens", 5000)
    fails_with(too_many, 2, "--max-new-tokens 5000: the context of this model holds at most")


@pytest.mark.parametrize("extra", [("--temperature", 0), ("--top-k", 60_000), ("--quantize", "int8")])
def test_unusual_prompts_stay_at_the_end(checkpoints: dict[str, Path], extra: tuple[object, ...]) -> None:
    prompts = ["<|im_end|><|endoftext|> end", "日本語 🙂 עברית العربية", "word " * 400 + "end", "x" * 5000]
    flags = ["--model-path", checkpoints["pretraining"], "--max-new-tokens", 4, *extra]
    result = call_script("sample_xcoax.py", *flags, stdin="\n".join(prompts))
    assert result.returncode == 0, result.stderr
    assert all(f"{prompt}\n" in result.stdout for prompt in prompts)
    assert result.stderr.count("leave 0 in the context of 512, and 4 are needed") == 2


def test_a_response_of_any_length_gets_an_instruction(checkpoints: dict[str, Path]) -> None:
    flags = ["--model-path", checkpoints["tuning"], "--max-new-tokens", 4]
    long = call_script("sample_xcoax_instruct.py", *flags, "--response", "y " * 50_000)
    assert long.returncode == 0, long.stderr
    assert "the response is too long: the model reads its first" in long.stderr
    fails_with(call_script("sample_xcoax_instruct.py", *flags, "--response", " \t"), 1, "an empty response")
