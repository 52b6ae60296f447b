"""The README tells the truth: its offline blocks run, its other commands parse, its table of files is the folder."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flags import read_flags
from model import GPT
from presets import (
    EVALUATE_PRESETS,
    FINETUNE_PRESETS,
    INSTRUCT_PRESETS,
    PREPROCESS_PRESETS,
    SAMPLE_INSTRUCT_PRESETS,
    SAMPLE_PRESETS,
    TRAIN_PRESETS,
)
from tests.conftest import ROOT
from world import pairs, stories

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh( offline)?\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for _, block in BLOCKS for line in block.splitlines() if line.startswith("python ")]


def test_the_blocks_are_found() -> None:
    assert sum(bool(offline) for offline, _ in BLOCKS) >= 2
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_flags_that_exist(command: str) -> None:
    _, script, *flags = shlex.split(command.partition(" < ")[0])
    assert (ROOT / script).is_file()
    presets: dict[str, dict[str, Any]] = {
        "preprocess_xcoax.py": PREPROCESS_PRESETS,
        "train_xcoax.py": TRAIN_PRESETS,
        "preprocess_instruct.py": INSTRUCT_PRESETS,
        "finetune_xcoax.py": FINETUNE_PRESETS,
        "sample_xcoax.py": SAMPLE_PRESETS,
        "sample_xcoax_instruct.py": SAMPLE_INSTRUCT_PRESETS,
        "evaluate_xcoax.py": EVALUATE_PRESETS,
    }
    read_flags(presets[script], "", flags)


def test_the_offline_blocks_run_one_after_the_other(tmp_path: Path) -> None:
    """As a newcomer would: in a copy of the project, with a folder of texts."""
    for file in ROOT.glob("*.py"):
        shutil.copy(file, tmp_path)
    (tmp_path / "my_texts").mkdir()
    for index, text in enumerate(stories(600)):
        (tmp_path / "my_texts" / f"{index}.txt").write_text(text + " and that was all.\n", encoding="utf-8")
    lines = [json.dumps(pair._asdict()) + "\n" for pair in pairs()[0][:300]]
    (tmp_path / "my_pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    script = "\n".join(block for offline, block in BLOCKS if offline)
    script = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\nset -e\n{script}"
    result = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "and that was all." in result.stdout
    assert (tmp_path / "out" / "mine" / "loss.png").is_file()
    assert (tmp_path / "out" / "my-pairs" / "best_checkpoint.pt").is_file()


def test_the_table_of_files_is_the_folder() -> None:
    assert set(re.findall(r"^\| `(\w+\.py)` \|", README, flags=re.MULTILINE)) == {path.name for path in ROOT.glob("*.py")}


def test_the_table_of_presets_is_the_config() -> None:
    import dataclasses

    import torch

    for name, train in TRAIN_PRESETS.items():
        vocab_size = PREPROCESS_PRESETS[name].vocab_size
        with torch.device("meta"):
            model = GPT(dataclasses.replace(train.model, vocab_size=vocab_size))
        shape = train.model
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"| {shape.n_layer}, {shape.n_head}, {shape.n_embed}, {shape.block_size} | {model.count_parameters() / 1e6:.1f} M |" in row
        assert f"{vocab_size:,} ids" in row
        assert f"{train.rows_per_step * shape.block_size:,} tokens × {train.max_steps:,} steps" in row
        assert f" {train.schedule}," in row


def test_no_link_is_dead_and_nothing_is_left_to_fill_in() -> None:
    headings = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in README.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.removeprefix("#") in headings if target.startswith("#") else (ROOT / target).is_file(), target
    assert not re.findall(r"\b[A-Z]+_[A-Z_]+\b", README)


def test_nothing_of_a_machine_stands_in_the_project() -> None:
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.md"), *ROOT.glob("tests/*.py"), ROOT / "Makefile"]:
        if path.name != Path(__file__).name:
            assert not re.search(r"/(home|root|work|Users)/", path.read_text(encoding="utf-8")), path
