"""The experiment: recipes are flags that exist, places on a curve are right, and a whole run compares two recipes."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.recipes import CONTEXT, PUBLISHED, RECIPES, flags_of
from experiments.tokens_to_loss import Run, as_table
from presets import TRAIN_PRESETS
from system.command_line import read_flags
from tests.conftest import ROOT, fails_with

LOSSES = st.lists(st.floats(1, 10), min_size=2, max_size=8)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_flags_that_exist_and_trains_for_its_tokens(recipe: str) -> None:
    config = read_flags(TRAIN_PRESETS, "", flags_of(recipe, 256, 800 * 4096, 20))
    assert config.max_steps * config.sequences_per_step * config.model.block_size == 800 * 4096
    assert config.model.block_size == CONTEXT
    assert config.optimizer == ("adamw" if recipe.startswith("published") or recipe == "fast-muon" else "muon")


@pytest.mark.parametrize("preset", ["xcoax-fast", "tinystories-fast", "demo"])
def test_the_fast_recipe_is_that_of_the_presets_at_their_width(preset: str) -> None:
    expected = dataclasses.asdict(TRAIN_PRESETS[preset])
    config = dataclasses.asdict(read_flags(TRAIN_PRESETS, "", flags_of("fast", TRAIN_PRESETS[preset].model.n_embed, 4096, 1)))
    same = (
        "optimizer",
        "lr",
        "adamw_lr",
        "momentum",
        "beta1",
        "beta2",
        "min_lr_share",
        "schedule",
        "cooldown_share",
        "weight_decay",
        "grad_clip",
    )
    assert {name: config[name] for name in same} == {name: expected[name] for name in same}


def test_the_published_recipe_is_that_of_the_preset() -> None:
    published = dataclasses.asdict(TRAIN_PRESETS["xcoax"])
    for name in ("optimizer", "schedule", "min-lr-share", "beta2"):
        assert PUBLISHED[name] == str(published[name.replace("-", "_")])


@given(LOSSES, st.floats(1, 10))
def test_a_loss_is_reached_where_the_curve_first_crosses_it(losses: list[float], goal: float) -> None:
    run = Run(tuple(range(len(losses))), tuple(10.0 * place for place in range(len(losses))), tuple(losses))
    if losses[0] <= goal:
        return
    place = run.first_at(goal, run.tokens)
    if min(losses) > goal:
        assert place is None
    else:
        assert place is not None
        before = int(place) if place % 1 else int(place) - 1
        assert all(loss > goal for loss in losses[: before + 1])
        assert losses[before] + (losses[before + 1] - losses[before]) * (place - before) == pytest.approx(goal)
        assert run.first_at(goal, run.seconds) == pytest.approx(10 * place)


def test_the_table_compares_with_the_first_recipe() -> None:
    slow = [Run((0, 100), (0.0, 50.0), (9.0, 5.0)), Run((0, 100), (0.0, 50.0), (9.0, 5.2))]
    fast = [Run((0, 40), (0.0, 32.0), (9.0, 5.1)), Run((0, 40), (0.0, 32.0), (9.0, 4.9))]
    worse = [Run((0, 40), (0.0, 32.0), (9.0, 6.0)), Run((0, 40), (0.0, 32.0), (9.0, 6.1))]
    table = as_table({"published": slow, "fast": fast, "worse": worse})
    assert "| published | 100 | 5.000 5.200 | 1.00 | 1.00 |" in table
    assert "| worse | 40 | 6.000 6.100 | not reached | not reached |" in table
    assert "| fast | 40 | 5.100 4.900 | 0.39 | 0.62 |" in table
    assert "Largest difference between two seeds of one recipe: 0.200" in table


@pytest.mark.parametrize("flags", ["--shape big", "--shape 4x100", "--shape 0x64", "--share 0", "--share 2", "--tokens 0", "--tokens 5000"])
def test_what_cannot_be_trained_is_refused_in_one_line(flags: str, dataset_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.tokens_to_loss", "--data-dir", str(dataset_folder), "--out-dir", str(tmp_path / "out")]
    fails_with(subprocess.run([*command, *flags.split()], cwd=ROOT, capture_output=True, text=True), 2, flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_whole_run(dataset_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.tokens_to_loss", "--data-dir", dataset_folder, "--out-dir", tmp_path]
    small = ["--shape", "1x64", "--tokens", "16384", "--seeds", "0", "--recipes", "published", "fast"]
    for _ in range(2):  # the second time the runs are only read
        result = subprocess.run([*map(str, command), *small], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "| fast | 6,144 |" in result.stdout
    assert "is already at step 4 of 4" in result.stdout
    assert (tmp_path / "tokens_to_loss.png").stat().st_size > 10_000
