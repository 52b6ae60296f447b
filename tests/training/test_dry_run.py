"""A dry run: its memory is what the model really keeps, its time is arithmetic, and it touches nothing."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from config import ModelConfig, TrainConfig
from formats.shards import open_dataset
from model import GPT
from presets import TRAIN_PRESETS
from system.device import autocast
from tests.conftest import call_script
from training.dry_run import activation_bytes, describe_run, with_vocabulary

SHAPE = ModelConfig(n_layer=3, n_head=4, n_embed=64, block_size=32, vocab_size=300)


def bytes_kept(config: TrainConfig, sequences: int, dtype: torch.dtype) -> int:
    """What a real forward pass keeps for its backward pass, counted by storage."""
    model = GPT(config.model)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(config.model.vocab_size, (sequences, config.model.block_size))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(torch.device("cpu"), dtype):
        loss = model(ids, ids)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sequences", [1, 2, 5])
def test_the_memory_of_activations_is_what_a_real_pass_keeps(dtype: torch.dtype, sequences: int) -> None:
    config = TrainConfig(model=SHAPE)
    first, second = activation_bytes(config, 1, dtype), activation_bytes(config, 2, dtype)
    assert first + (sequences - 1) * (second - first) == activation_bytes(config, sequences, dtype) == bytes_kept(config, sequences, dtype)


def test_recomputed_blocks_keep_less() -> None:
    config = TrainConfig(model=SHAPE)
    recomputing = dataclasses.replace(config, checkpoint_activations=True)
    assert activation_bytes(recomputing, 4, torch.float32) < activation_bytes(config, 4, torch.float32) * 0.6


def test_parts_and_times_are_arithmetic() -> None:
    text = describe_run(with_vocabulary(TRAIN_PRESETS["gibberish"]))
    sizes = {name.strip(): float(size.replace(",", "")) for name, size in re.findall(r"^  (.{30}) *([\d,.]+)$", text, re.MULTILINE)}
    assert "layers 24, heads 12, width 1536, context 1,024, ids 52,000: 1,065.9 M parameters" in text
    assert sizes["weights"] == sizes["gradients"] == pytest.approx(4 * 1065.9, abs=0.5)
    assert sizes["adamw"] == pytest.approx(8 * 1065.9, abs=0.5)
    assert sizes["logits of a chunk"] == pytest.approx(4096 * 52_000 * 8 / 1e6, abs=1)
    parts = [size for name, size in sizes.items() if name != "together at least"]
    assert len(parts) == 5
    assert sizes["together at least"] == pytest.approx(sum(parts), abs=3)
    assert re.search(r"^  NVIDIA L40 +185 h 1\d min$", text, re.MULTILINE)  # as in docs/relatives.md
    assert text.endswith("the log shows the time left.")


def test_no_run_takes_no_time() -> None:
    text = describe_run(TRAIN_PRESETS["demo"])
    assert re.search(r"^  NVIDIA L40 +under 1 s$", text, re.MULTILINE)
    assert not re.search(r" 0 s$", text, re.MULTILINE)


def test_muon_keeps_one_number_for_each_of_its_own() -> None:
    text = describe_run(TRAIN_PRESETS["xcoax-fast"])
    hidden = 12 * (4 * 1024 * 1024 + 3 * 1024 * 2752)
    rest = 160.9e6 - hidden
    assert re.search(rf"^  muon +{4 * hidden / 1e6:,.0f}$", text, re.MULTILINE)
    assert float(re.findall(r"^  adamw +(\d+)$", text, re.MULTILINE)[0]) == pytest.approx(8 * rest / 1e6, abs=1)


def test_there_is_no_time_in_float32() -> None:
    text = describe_run(TrainConfig(model=SHAPE, dtype="float32"))
    assert "NVIDIA" not in text
    assert "Time: not computed" in text


def test_the_vocabulary_is_that_of_the_data_or_of_the_preset_that_makes_it(
    dataset_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert with_vocabulary(TRAIN_PRESETS["fineweb"]).model.vocab_size == 50_257
    assert with_vocabulary(dataclasses.replace(TRAIN_PRESETS["fineweb"], data_dir="data/fineweb/")).model.vocab_size == 50_257
    assert not capsys.readouterr().out
    assert with_vocabulary(dataclasses.replace(TRAIN_PRESETS["fineweb"], data_dir="data/none")).model.vocab_size == 8888
    assert capsys.readouterr().out == "data/none is not there yet: 8,888 ids are assumed\n"
    there = dataclasses.replace(TRAIN_PRESETS["fineweb"], data_dir=str(dataset_folder))
    assert with_vocabulary(there).model.vocab_size == open_dataset(dataset_folder).vocab_size


def test_a_dry_run_needs_no_data_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = ("--n-layer", 2, "--n-embed", 64, "--n-head", 2, "--block-size", 32, "--hours", 8)
    result = call_script("train_xcoax.py", "--dry-run", "--data-dir", tmp_path / "none", "--out-dir", out, *small)
    assert result.returncode == 0, result.stderr
    assert "the log shows the speed." in result.stdout  # the time is fixed
    assert "Million tokens in 8 hours on one GPU," in result.stdout and "MB on one GPU that trains alone," in result.stdout
    assert not list(tmp_path.iterdir())
