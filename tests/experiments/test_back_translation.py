"""The experiment on back-translation: sets of pairs, the table, refusals, and a whole run."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.back_translation import RECIPE, SETS, Cost, as_table, write_sets
from presets import FINETUNE_PRESETS
from system.command_line import read_flags
from tests.conftest import ROOT, fails_with, make_pairs, run_script, write_pairs

COMMAND = (sys.executable, "-m", "experiments.back_translation")


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_sets_differ_in_their_responses_or_in_their_instructions(tmp_path: Path) -> None:
    scored = [
        {
            "response": f"r{number}",
            "generated_instruction": f"g{number}",
            "true_instruction": f"t{number}",
            "logprob_per_token": -number,
            "logprob_gain": number,
        }
        for number in range(20)
    ]
    write_pairs(tmp_path / "scored.jsonl", scored)
    write_sets(tmp_path)
    made = {name: rows_of(tmp_path / f"{name.replace(', ', '-')}.jsonl") for name in SETS}
    numbers = {name: [int(row["instruction"][1:]) for row in rows] for name, rows in made.items()}
    assert numbers["likely, written"] == numbers["likely, true"] == list(range(10))
    assert numbers["gain, written"] == numbers["gain, true"] == list(range(19, 9, -1))
    assert numbers["drawn, written"] == numbers["drawn, true"]
    assert len(set(numbers["drawn, true"])) == 10
    assert max(numbers["drawn, true"]) >= 10
    assert {(int(row["instruction"][1:]), int(row["response"][1:])) for row in made["drawn, mismatched"]} == set(
        itertools.pairwise((*numbers["drawn, true"], numbers["drawn, true"][0]))
    )
    for name, letter in (("written", "g"), ("true", "t")):
        for half in ("drawn", "likely", "gain"):
            rows = made[f"{half}, {name}"]
            assert all(row["response"] == letter + row["instruction"][1:] for row in rows)  # the two texts have changed places


def test_the_table_compares_answer_by_answer() -> None:
    sizes = np.array([10.0, 30.0])
    costs = {name: [Cost(np.array([10.0, 30.0]) * (2 - 0.1 * place), sizes)] * 2 for place, name in enumerate(SETS)}
    lines = as_table(costs, 7).splitlines()
    assert lines[0].startswith("| tuned on 7 pairs |")
    assert lines[2] == "| drawn, written | 2.0000 2.0000 |  | +0.3000 (+0.3000..+0.3000) |"  # the same for each answer
    assert lines[3] == "| likely, written | 1.9000 1.9000 | -0.1000 (-0.1000..-0.1000) | +0.3000 (+0.3000..+0.3000) |"
    assert lines[5] == "| drawn, true | 1.7000 1.7000 | -0.3000 (-0.3000..-0.3000) |  |"
    assert lines[-1].startswith("2 answers;")


def test_the_recipe_is_flags_that_exist() -> None:
    flags = [part for name, value in RECIPE.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    config = read_flags(FINETUNE_PRESETS, "", flags)
    assert {name: getattr(config, name) for name in RECIPE} == RECIPE


@pytest.fixture(scope="module")
def tuned(dataset_folder: Path, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was tuned for a step on pairs of which many are held out."""
    folder = tmp_path_factory.mktemp("tuned")
    source = write_pairs(folder / "pairs.jsonl", make_pairs(300))
    made = run_script(
        "preprocess_instruct.py", "--input", source, "--data-dir", folder / "data", "--tokenizer", dataset_folder, "--block-size", 512,
        "--val-share", 0.5,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    made = run_script(
        "finetune_xcoax.py", "--model-path", checkpoints["pretraining"], "--data-dir", folder / "data", "--out-dir", folder / "out",
        "--epochs", 0.1, "--no-compile",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder / "out" / "best_checkpoint.pt"


@pytest.mark.long
def test_a_whole_run(tuned: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    command = [*COMMAND, "--model-path", tuned, "--forward-path", checkpoints["pretraining"], "--out-dir", tmp_path]
    few = ["--responses", 60, "--judges", 20, "--epochs", 1, "--seeds", 0]
    tables = []
    for _ in range(2):  # the second time what is finished is only read
        result = subprocess.run([*map(str, [*command, *few])], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        tables.append((tmp_path / "back_translation.md").read_text(encoding="utf-8"))
        assert tables[-1] in result.stdout
    assert tables[0] == tables[1]
    assert "tuned on 30 pairs" in tables[0]
    assert "20 answers;" in tables[0]
    assert result.stdout.count("is already at step") == len(SETS)
    assert len(rows_of(tmp_path / "drawn-true.jsonl")) == 30
    result = subprocess.run([*map(str, [*command, *few, "--judges", 30])], cwd=ROOT, capture_output=True, text=True)
    fails_with(result, 2, "--judges was 20, now 30", "--out-dir")
    (tmp_path / "settings.json").write_text("{")
    result = subprocess.run([*map(str, [*command, *few])], cwd=ROOT, capture_output=True, text=True)
    fails_with(result, 2, f"{tmp_path / 'settings.json'} is damaged", "--out-dir")


@pytest.mark.long
def test_more_pairs_than_are_held_out_are_refused(tuned: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    command = [*COMMAND, "--model-path", tuned, "--forward-path", checkpoints["pretraining"], "--out-dir", tmp_path / "out"]
    result = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    fails_with(result, 2, "--responses 2,000 and --judges 1,000: there are", "--val-share")


@pytest.mark.parametrize("flag", ["--responses", "--judges"])
def test_too_few_pairs_are_refused(flag: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    command = [*COMMAND, "--model-path", checkpoints["tuning"], "--forward-path", checkpoints["pretraining"], "--out-dir", tmp_path / "out"]
    result = subprocess.run([*map(str, [*command, flag, 1])], cwd=ROOT, capture_output=True, text=True)
    fails_with(result, 2, f"{flag} 1: 2 or more")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_tuned_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    both = ["--model-path", checkpoints["pretraining"], "--forward-path", checkpoints["pretraining"], "--out-dir", tmp_path / "out"]
    result = subprocess.run([*map(str, [*COMMAND, *both])], cwd=ROOT, capture_output=True, text=True)
    fails_with(result, 2, "--model-path", "not tuned")
