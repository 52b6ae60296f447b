"""Loading a checkpoint to sample from: a missing, wrong or damaged one is explained in one line."""

from pathlib import Path

import pytest

from tests.conftest import call_script, fails_with


@pytest.mark.parametrize(
    ("script", "name", "command"),
    [
        ("sample_xcoax.py", "xcoax", "python train_xcoax.py"),
        ("sample_xcoax_instruct.py", "instruct", "python finetune_xcoax.py"),
    ],
)
def test_a_missing_checkpoint_names_the_command_that_makes_it(tmp_path: Path, script: str, name: str, command: str) -> None:
    result = call_script(script, cwd=tmp_path)
    fails_with(result, 1, f"no checkpoint at out/{name}/best_checkpoint.pt: no such file", "make demo", f"To make this one: {command}")


def test_a_pretrained_model_finds_no_instructions(checkpoints: dict[str, Path]) -> None:
    result = call_script("sample_xcoax_instruct.py", "--response", "x", "--model-path", checkpoints["pretraining"])
    fails_with(result, 1, "was pretrained and not tuned", "python finetune_xcoax.py --model-path")


def test_a_tuned_model_writes_towards_endings_with_a_warning(checkpoints: dict[str, Path]) -> None:
    result = call_script("sample_xcoax.py", "--prompt", "x", "--model-path", checkpoints["tuning"], "--max-new-tokens", 2)
    assert result.returncode == 0
    assert "was tuned on instructions" in result.stderr


def test_a_damaged_checkpoint_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    damaged = tmp_path / "best_checkpoint.pt"
    damaged.write_bytes(checkpoints["tuning"].read_bytes()[:-3000])
    result = call_script("sample_xcoax_instruct.py", "--response", "x", "--model-path", damaged)
    fails_with(result, 1, "is damaged (", "nothing in it was run")
