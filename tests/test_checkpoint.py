"""Checkpoints: what a wrong file does, and that reading one runs nothing."""

import pickle
from pathlib import Path

import pytest
import torch

from checkpoint import load_checkpoint, save_checkpoint
from config import ModelConfig
from errors import UserError
from model import GPT
from tokenizer import Tokenizer

SHAPE = ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=8, vocab_size=400)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(SHAPE).eval()


@pytest.fixture
def saved(model: GPT, dataset_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "best_checkpoint.pt"
    tokenizer = Tokenizer.load(dataset_folder)
    run = {"train_config": {"lr": 1.0}, "identity": {"of": "a test"}, "step": 3, "tokens": 9, "val_loss": 2.5}
    save_checkpoint(path, model=model, stage="pretraining", tokenizer=tokenizer, order="backward", **run)  # type: ignore[arg-type]  # by name
    return path


def test_what_was_saved_comes_back(saved: Path, model: GPT, dataset_folder: Path) -> None:
    checkpoint = load_checkpoint(saved)
    assert (checkpoint.step, checkpoint.tokens, checkpoint.val_loss, checkpoint.order) == (3, 9, 2.5, "backward")
    assert (checkpoint.stage, checkpoint.identity, checkpoint.train_config) == ("pretraining", {"of": "a test"}, {"lr": 1.0})
    assert checkpoint.model_config == SHAPE
    assert checkpoint.tokenizer.sha256 == Tokenizer.load(dataset_folder).sha256
    ids = torch.arange(8)[None]
    assert torch.equal(checkpoint.make_model(torch.device("cpu")).eval()(ids), model(ids))


def test_a_missing_checkpoint_gives_the_command() -> None:
    with pytest.raises(UserError, match=r"no checkpoint at out/xcoax/best_checkpoint.pt. Run: python train_xcoax.py$"):
        load_checkpoint(Path("out/xcoax/best_checkpoint.pt"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_that_breaks_off_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="damaged; nothing in it was run"):
        load_checkpoint(saved)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "best_checkpoint.pt"
    if zipped:
        torch.save({"format": 1, "model": Bomb(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"format": 1, "model": Bomb(trace)}))
    with pytest.raises(UserError, match="no checkpoint of this project"):
        load_checkpoint(path)
    assert not trace.exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="no checkpoint of this project"):
        load_checkpoint(path)
    torch.save({"format": 99}, path)
    with pytest.raises(UserError, match="checkpoint format 99"):
        load_checkpoint(path)
    path.write_text("just text")
    with pytest.raises(UserError, match="no checkpoint of this project"):
        load_checkpoint(path)
