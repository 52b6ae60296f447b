"""Pretraining as a task: its data, its validation windows, its sample text."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch

from config import TrainConfig
from formats.checkpoint import load_checkpoint
from formats.shards import open_dataset
from model import GPT
from presets import TRAIN_PRESETS
from system.errors import UserError
from tests.conftest import call_script, fails_with
from tests.preprocessing.in_process import run_here
from tests.training.counting import SHAPE
from tests.training.runs import Run, pretrain
from tokens.tokenizer import Tokenizer
from training.loss import measure_loss
from training.metrics import read_metrics
from training.pretraining import describe_data, open_training_data, pretraining_task


def test_the_validation_loss_does_not_depend_on_the_batch_size(dataset_folder: Path, tmp_path: Path) -> None:
    losses = []
    for batch_size in (1, 3, 64):
        out = tmp_path / str(batch_size)
        result = pretrain(dataset_folder, out, "--max-steps", 1, "--batch-size", batch_size, "--eval-tokens", 1 << 20)
        assert result.returncode == 0, result.stderr
        losses.append(next(row["val_loss"] for row in read_metrics(out) if "val_loss" in row))  # before the first step
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)


def test_validation_batches_have_one_shape_so_that_a_model_is_compiled_once(dataset_folder: Path) -> None:
    task = pretraining_task(TrainConfig(model=SHAPE), open_dataset(dataset_folder), Tokenizer.load(dataset_folder))
    assert {batch.inputs.shape for batch in task.validation(3)} == {(3, SHAPE.block_size)}


def test_a_checkpoint_alone_gives_the_loss_that_its_run_reported(pretrained: Run, dataset_folder: Path) -> None:
    best = load_checkpoint(pretrained.folder / "best_checkpoint.pt")
    config = TrainConfig(model=best.model_config, eval_tokens=256)
    validation = pretraining_task(config, open_dataset(dataset_folder), best.tokenizer).validation(4)
    loss = measure_loss(best.make_model(torch.device("cpu")), validation, best.tokenizer.bytes_per_id, torch.float32)
    assert loss.nats_per_token == pytest.approx(best.val_loss, abs=1e-6)


def test_the_sample_text_ends_with_the_prompt_and_can_be_turned_off(dataset_folder: Path) -> None:
    dataset, tokenizer = open_dataset(dataset_folder), Tokenizer.load(dataset_folder)
    config = TrainConfig(model=dataclasses.replace(SHAPE, block_size=32), sample_tokens=4)
    torch.manual_seed(0)
    model = GPT(config.model)
    assert pretraining_task(config, dataset, tokenizer).sample(model, 0).endswith("The end.")
    assert pretraining_task(dataclasses.replace(config, sample_tokens=0), dataset, tokenizer).sample(model, 0) == ""


def test_a_forward_model_begins_with_a_beginning(dataset_folder: Path, tmp_path: Path) -> None:
    twin, out = tmp_path / "twin", tmp_path / "out"
    made = run_here("preprocess_xcoax.py", "--like", dataset_folder, "--data-dir", twin, "--order", "forward")
    assert made.returncode == 0, made.stderr
    result = pretrain(twin, out, "--max-steps", 1)
    assert [row["sample"][:16] for row in read_metrics(out) if "sample" in row] == ["Once upon a time"] * 2, result.stderr
    back = call_script("train_xcoax.py", "--like", out, "--data-dir", dataset_folder, "--out-dir", tmp_path / "back")
    assert [row["sample"][-8:] for row in read_metrics(tmp_path / "back") if "sample" in row] == ["The end."] * 2, back.stderr
    for prompt in ("The end.", "A dog"):  # a flag wins, also with the other order's default
        result = pretrain(twin, tmp_path / prompt, "--max-steps", 1, "--sample-prompt", prompt)
        assert all(row["sample"].startswith(prompt) for row in read_metrics(tmp_path / prompt) if "sample" in row), result.stderr


def test_data_in_the_other_word_order_is_refused_on_request(dataset_folder: Path, tmp_path: Path) -> None:
    result = pretrain(dataset_folder, tmp_path / "out", "--order", "forward")
    fails_with(result, 2, "--order forward", "is backward", "python preprocess_xcoax.py --order forward")


def test_a_tokenizer_that_did_not_make_the_shards_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(dataset_folder, tmp_path / "data"))
    config = TrainConfig(data_dir=str(data), model=SHAPE)
    dataset, tokenizer = open_training_data(config)
    assert (dataset.vocab_size, tokenizer.vocab_size) == (400, 400)
    with (data / "tokenizer.model").open("ab") as file:
        file.write(b"\x82\x7d\x00")  # an empty field that SentencePiece does not know, which changes no id
    with pytest.raises(UserError, match="is not the tokenizer that the shards beside it were made with"):
        open_training_data(config)


def test_the_data_is_described_in_tokens_and_epochs(dataset_folder: Path) -> None:
    dataset = open_dataset(dataset_folder)
    config = TrainConfig(data_dir="data/x", model=SHAPE, batch_size=2, grad_accum=3, max_steps=100)
    available = len(dataset.stream("train"))
    assert describe_data(config, dataset) == (
        f"{available:,} training tokens in data/x, backward; 48 in a step, 4,800 in all, {4800 / available:.2f} epochs"
    )


@pytest.mark.parametrize("preset", TRAIN_PRESETS)
def test_every_preset_starts(preset: str, dataset_folder: Path, tmp_path: Path) -> None:
    """Its width, MLP, dtype and recipe, with one layer, short sequences and steps of one sequence."""
    small = ("--n-layer", 1, "--batch-size", 1, "--grad-accum", 1, "--block-size", 64, "--max-steps", 2, "--warmup-steps", 1)
    quick = ("--eval-tokens", 128, "--sample-tokens", 4, "--log-every", 1, "--no-compile")
    dtype = ("--dtype", "float32") if preset == "gibberish" else ()  # a CPU takes a minute in float16
    result = call_script("train_xcoax.py", preset, "--data-dir", dataset_folder, "--out-dir", tmp_path, *small, *quick, *dtype)
    assert result.returncode == 0, result.stderr
    losses = [row["loss"] for row in read_metrics(tmp_path) if "loss" in row]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    shape = load_checkpoint(tmp_path / "best_checkpoint.pt").model_config
    assert (shape.n_embed, shape.mlp_width) == (TRAIN_PRESETS[preset].model.n_embed, TRAIN_PRESETS[preset].model.mlp_width)
