"""--init-from: a run starts from another model's weights, keeps its shape and its tokenizer, and resumes like any run."""

import re
from pathlib import Path

import pytest

from formats.checkpoint import load_checkpoint
from tests.conftest import call_script, fails_with, make_documents, write_jsonl
from tests.preprocessing.in_process import run_here
from tests.training.runs import LOOP, Run
from training.metrics import read_metrics

FLAGS = (*LOOP, "--max-steps", 4, "--eval-every", 2, "--eval-tokens", 2000, "--sample-tokens", 0)


def start(base: Path, data: Path, out: Path, *flags: object):  # type: ignore[no-untyped-def]
    return call_script("train_xcoax.py", "--init-from", base, "--data-dir", data, "--out-dir", out, *FLAGS, *flags)


@pytest.fixture(scope="module")
def other_data(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of one's own, with the tokenizer of the checkpoint."""
    folder = tmp_path_factory.mktemp("other")
    source = write_jsonl(folder / "texts.jsonl", make_documents(150, seed=9))
    flags = ["--tokenizer", base, "--vocab-size", 400, "--val-share", 0.2]
    result = run_here("preprocess_xcoax.py", "--input", source, "--data-dir", folder / "data", *flags)
    assert result.returncode == 0, result.stderr
    return folder / "data"


@pytest.fixture(scope="module")
def exported(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "hf"
    result = call_script("export_xcoax.py", "--model-path", base, "--out-dir", folder, "--dtype", "float32", "--no-verify")
    assert result.returncode == 0, result.stderr
    return folder


def test_a_run_begins_with_the_loss_of_the_model(pretrained: Run, base: Path, dataset_folder: Path, exported: Path, tmp_path: Path) -> None:
    """The same data and the same evaluation: the loss before the first step is the one that the checkpoint was saved with."""
    evaluated = [row for row in read_metrics(pretrained.folder) if row.get("val_loss") == load_checkpoint(base).val_loss]
    assert evaluated
    losses = []
    for number, name in enumerate((base, exported)):
        result = start(name, dataset_folder, tmp_path / str(number), "--eval-tokens", 256)
        assert result.returncode == 0, result.stderr
        assert f"starts from {name}, step {load_checkpoint(base).step}" in result.stdout.replace("\n  ", " ")
        losses.append([row["val_loss"] for row in read_metrics(tmp_path / str(number)) if "val_loss" in row])
    assert losses[0][0] == pytest.approx(load_checkpoint(base).val_loss, abs=1e-5)
    assert losses[0] == losses[1]  # the exported folder is the same start


def test_a_run_that_makes_the_model_worse_says_so(base: Path, dataset_folder: Path, tmp_path: Path) -> None:
    result = start(base, dataset_folder, tmp_path / "out", "--lr", 0.5)
    assert re.search(r"the best so far since the start, which had \d\.\d{4}\n", result.stdout), result.stdout


def test_a_longer_context_is_possible_and_another_shape_is_not(base: Path, other_data: Path, tmp_path: Path) -> None:
    assert start(base, other_data, tmp_path / "out", "--block-size", 96, "--dropout", 0.1).returncode == 0
    config = load_checkpoint(tmp_path / "out" / "best_checkpoint.pt").model_config
    before = load_checkpoint(base).model_config
    assert (config.block_size, config.dropout, config.n_layer, config.n_embed) == (96, 0.1, before.n_layer, before.n_embed)
    fails_with(
        start(base, other_data, tmp_path / "x", "--n-layer", 7), 2, "--n-layer 7: ", "has 1, which --init-from keeps. Leave out --n-layer"
    )
    fails_with(start(base, other_data, tmp_path / "x", "--no-qk-norm"), 2, "--qk-norm False")
    assert not (tmp_path / "x").exists()


def test_it_resumes_and_another_start_is_refused(base: Path, other_data: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert start(base, other_data, out).returncode == 0
    resumed = start(exported, other_data, out, "--max-steps", 6)  # the same weights under another name
    assert resumed.returncode == 0, resumed.stderr
    assert "at step 4" in resumed.stdout
    flags = (
        "--data-dir",
        other_data,
        "--out-dir",
        out,
        *FLAGS,
        "--no-compile",
        "--n-layer",
        2,
        "--n-head",
        2,
        "--n-embed",
        32,
        "--block-size",
        64,
    )
    fails_with(call_script("train_xcoax.py", *flags), 1, "the first weights was 'step", "now 'random'")


def test_data_of_another_tokenizer_or_order_is_refused(base: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "texts.jsonl", make_documents(60, seed=3))
    always = ("--input", source, "--vocab-size", 400, "--val-share", 0.2)
    for name, flags in (("own", []), ("forward", ["--tokenizer", base, "--order", "forward"])):
        assert run_here("preprocess_xcoax.py", "--data-dir", tmp_path / name, *always, *flags).returncode == 0
    fails_with(start(base, tmp_path / "own", tmp_path / "out"), 2, "was made with tokenizer", f"--tokenizer {base} --order backward")
    fails_with(start(base, tmp_path / "forward", tmp_path / "out"), 2, "is forward", "is backward")


def test_a_dry_run_takes_the_shape_of_the_model(base: Path) -> None:
    result = call_script("train_xcoax.py", "--init-from", base, "--dry-run")
    assert result.stdout.startswith("layers 1, heads 2, width 32, context 64, ids 400"), result.stderr


def test_pairs_can_be_made_with_the_tokenizer_of_an_exported_model_and_tune_it(exported: Path, pairs: Path, tmp_path: Path) -> None:
    flags = ("--data-dir", pairs, "--out-dir", tmp_path / "out", "--epochs", 0.2, "--batch-size", 4, "--no-compile")
    result = call_script("finetune_xcoax.py", "--model-path", exported, *flags)
    assert result.returncode == 0, result.stderr
    made = ("--input", tmp_path / "x.jsonl", "--data-dir", tmp_path / "data", "--tokenizer", exported, "--vocab-size", 500)
    fails_with(run_here("preprocess_instruct.py", *made), 2, f"--vocab-size 500: {exported} has 400 ids")
