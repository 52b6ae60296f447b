"""Every numeric flag of every script with values that no one should give: it stops in one line, or works and its figures are finite."""

import contextlib
import dataclasses
import json
import os
import re
import resource
import signal
import subprocess
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest
import tyro

from config import (
    BenchmarkConfig,
    EvaluateConfig,
    FinetuneConfig,
    InstructConfig,
    PreprocessConfig,
    SampleConfig,
    SampleInstructConfig,
    ScoreConfig,
    TrainConfig,
)
from formats.checkpoint import BEST, load_checkpoint
from tests.conftest import call_script, make_documents, make_pairs, write_jsonl, write_pairs
from tests.faults.trials import Trials
from tests.preprocessing.in_process import run_here

VALUES = ("-1", "0", "1", "2147483648", "9223372036854775808", "1e308", "nan", "inf", "", "word")
LARGE = ("-1", "2147483648", "9223372036854775808", "1e308", "nan", "")  # for the benchmark, of which every run takes seconds
QUICK_FLAGS = ("--n-layer", "--n-embed", "--batch-size", "--hours", "--weight-decay", "--epochs")
NUMBERS = (int, float, int | None, float | None, tuple[int, ...])
PATIENCE = 2.0  # seconds of computing until Ctrl-C is pressed: a run of 2**31 steps is fine, as long as it stops and keeps what it has
LIMIT = 120.0  # seconds until a script counts as hanging, on a machine that does other things too
MEMORY = 6 << 30  # bytes that a value may ask for: a test must not bring down the machine


class Script(NamedTuple):
    """A script, its configuration, and the flags of a small run of it; OUT is its folder or file."""

    name: str
    config: type
    flags: dict[str, object]
    values: tuple[str, ...] = VALUES
    patience: float = PATIENCE


def numeric_flags(config: type) -> list[str]:
    """The flags of a configuration that take a number, as --help shows them."""
    found = []
    bare, marked = typing.get_type_hints(config), typing.get_type_hints(config, include_extras=True)
    suppressed = typing.get_args(tyro.conf.Suppress[int])[1]
    for field in dataclasses.fields(config):
        if suppressed in typing.get_args(marked[field.name])[1:]:
            continue
        if dataclasses.is_dataclass(bare[field.name]):
            found += numeric_flags(bare[field.name])
        elif bare[field.name] in NUMBERS:
            found.append("--" + field.name.replace("_", "-"))
    return found


@contextlib.contextmanager
def a_person_waits(patience: float) -> Iterator[None]:
    """After a while Ctrl-C is pressed; a script that goes on hangs. The memory of the process is bounded."""

    def press(number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it still runs after {LIMIT:.0f} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory = resource.getrlimit(resource.RLIMIT_AS)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGPROF, signal.SIGINT)}
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, memory[1]))
    signal.signal(signal.SIGPROF, press)
    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_PROF, patience)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, memory)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def judge(result: subprocess.CompletedProcess[str], out: Path) -> bool:
    """Whether the script refused in one line; anything else but a right end fails."""
    assert "Traceback" not in result.stderr, result.stderr
    if result.returncode == 0:
        # What was generated may say anything; reports are lines of our own.
        reports = [line for line in result.stdout.splitlines() if "loss" in line or "per byte" in line]
        assert not any(re.search(r"\b(nan|inf)\b", line) for line in reports), reports
        if (out / BEST).is_file():
            load_checkpoint(out / BEST)  # refuses weights that are not finite
        for path in [out] if out.is_file() else [*out.glob("*.json*")]:
            for line in path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text(encoding="utf-8")]:
                json.loads(line, parse_constant=pytest.fail)
        return False
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("finishing this step")]
    if lines[0].startswith("╭"):  # the command line's own box: not a number
        assert result.returncode == 2 and "Error parsing --" in result.stderr
        return True
    assert len(lines) == 1, result.stderr
    if result.returncode == 128 + signal.SIGINT:
        has_begun = "repeats" in result.stdout or re.search(r"stopped at step [1-9]\d*, saved in", lines[0])
        assert has_begun, f"nothing happened before Ctrl-C: {lines[0]}"
        return False
    assert "--" in lines[0], f"it does not say what to try: {lines[0]}"
    return True


def sweep(trials: Trials, script: Script, folder: Path, only: tuple[str, ...] = ()) -> None:
    """Run the script with every value for every numeric flag."""
    run = run_here if script.name.startswith("preprocess") else call_script
    for flag in numeric_flags(script.config):
        for value in script.values if not only or flag in only else ():
            out = folder / f"{script.name}{flag}={value}{'.jsonl' if 'OUT.jsonl' in script.flags.values() else ''}"
            given: list[object] = [f"{flag}={value}"]
            for name, usual in script.flags.items():
                if name != flag:
                    given += [name, *(usual if isinstance(usual, tuple) else [out if str(usual).startswith("OUT") else usual])]
            with trials.one(f"{script.name} {flag}={value}") as trial, a_person_waits(script.patience):
                trial.refused = judge(run(script.name, *given), out)


SHAPE = {"--n-layer": 1, "--n-head": 1, "--n-embed": 8, "--block-size": 64}
LOOP = {"--batch-size": 2, "--grad-accum": 1, "--log-every": 1, "--device": "cpu", "--no-compile": (), "--out-dir": "OUT"}


def training(data: Path) -> Script:
    flags = {**SHAPE, **LOOP, "--data-dir": data, "--max-steps": 3, "--eval-every": 2, "--eval-tokens": 128, "--sample-tokens": 4}
    return Script("train_xcoax.py", TrainConfig, flags)


def test_flags_with_impossible_numbers(trials: Callable[..., Trials], dataset_folder: Path, tmp_path: Path) -> None:
    values = ("2147483648", "1e308", "")
    sweep(trials("impossible numbers for a flag"), training(dataset_folder)._replace(values=values), tmp_path, QUICK_FLAGS)


@pytest.fixture(scope="session")
def scripts(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Script]:
    """All scripts that take numbers, on a small world, each after it has run once: an import must not be what Ctrl-C interrupts."""
    folder = tmp_path_factory.mktemp("world")
    documents, pairs = write_jsonl(folder / "documents.jsonl", make_documents(60)), write_pairs(folder / "pairs.jsonl", make_pairs(24))
    few = write_pairs(folder / "few.jsonl", make_pairs(5, 3))
    row = {"ctx": "A cat", "endings": ["runs.", "sits.", "sings.", "reads."], "label": 1}
    (folder / "tasks.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    tasks = {"--hellaswag": folder / "tasks.jsonl"}
    base, tuned = folder / "base" / BEST, folder / "tuned" / BEST
    pairs_flags = {"--input": pairs, "--tokenizer": base, "--block-size": 64, "--val-share": 0.3, "--workers": 1}
    tuning = {**LOOP, "--model-path": base, "--data-dir": folder / "pairs", "--epochs": 1, "--eval-pairs": 2}
    text = {"--num-samples": 2, "--max-new-tokens": 4, "--device": "cpu"}
    card = {
        "--documents": 5,
        "--max-pairs": 4,
        "--ranked-pairs": 2,
        "--candidates": (2,),
        "--max-new-tokens": 4,
        "--device": "cpu",
        **tasks,
    }
    speed = {
        "--parts": ("train", "generate", "score"),
        "--repeats": 1,
        "--prompt-tokens": 8,
        "--tokens": 2,
        "--rows": (1,),
        "--batch-size": 2,
    }
    speed |= {**SHAPE, "--candidates": 4, "--candidate-tokens": 4, "--device": "cpu", "--no-compile": (), "--out-dir": "OUT"}
    made = [
        Script("preprocess_xcoax.py", PreprocessConfig, {"--input": documents, "--vocab-size": 300, "--workers": 1, "--data-dir": "OUT"}),
        training(dataset_folder)._replace(flags={**training(dataset_folder).flags, **tasks}),
        Script("preprocess_instruct.py", InstructConfig, {**pairs_flags, "--data-dir": "OUT"}),
        Script("finetune_xcoax.py", FinetuneConfig, tuning),
        Script("sample_xcoax.py", SampleConfig, {**text, "--model-path": base, "--prompt": "the cat"}),
        Script("sample_xcoax_instruct.py", SampleInstructConfig, {**text, "--model-path": tuned, "--response": "the cat"}),
        Script("sample_xcoax_instruct.py", SampleInstructConfig, {**text, "--model-path": tuned, "--input": few, "--output": "OUT.jsonl"}),
        Script("score_xcoax.py", ScoreConfig, {"--model-path": tuned, "--pairs": few, "--output": "OUT.jsonl", "--device": "cpu"}),
        Script("evaluate_xcoax.py", EvaluateConfig, {**card, "--model-path": tuned, "--out-dir": "OUT"}, patience=10),
        Script("benchmark_xcoax.py", BenchmarkConfig, speed, LARGE),
    ]
    outs = (
        folder / "data",
        base.parent,
        folder / "pairs",
        tuned.parent,
        None,
        None,
        folder / "a.jsonl",
        folder / "b.jsonl",
        folder / "card",
    )
    for script, out in zip(made, outs, strict=False):
        run = run_here if script.name.startswith("preprocess") else call_script
        values = [[name, *(usual if isinstance(usual, tuple) else [usual])] for name, usual in script.flags.items()]
        result = run(script.name, *(out if str(value).startswith("OUT") else value for each in values for value in each))
        assert result.returncode == 0, result.stderr
    return made


@pytest.mark.faults
@pytest.mark.parametrize("number", range(10))
def test_every_numeric_flag_of_every_script(trials: Callable[..., Trials], scripts: list[Script], number: int, tmp_path: Path) -> None:
    sweep(trials("impossible numbers for a flag"), scripts[number], tmp_path)
