"""Checkpoints: they come back complete, wrong files are refused, and reading one never runs code."""

import pickle
from pathlib import Path

import pytest
import torch

from config import ModelConfig
from formats.checkpoint import load_checkpoint, save_checkpoint
from model import GPT
from system.errors import UserError
from tokens.tokenizer import Tokenizer

SHAPE = ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=8, vocab_size=400)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(SHAPE).eval()


@pytest.fixture
def saved(model: GPT, dataset_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "best_checkpoint.pt"
    tokenizer = Tokenizer.load(dataset_folder)
    run = {"train_config": {"lr": 1.0}, "must_match": {"of": "a test"}, "step": 3, "tokens": 9, "val_loss": 2.5}
    made_of = {"weights": model.state_dict(), "model_config": model.config, "tokenizer": tokenizer}
    save_checkpoint(path, stage="pretraining", order="backward", **made_of, **run)  # type: ignore[arg-type]  # by name
    return path


def test_a_saved_checkpoint_comes_back_complete(saved: Path, model: GPT, dataset_folder: Path) -> None:
    checkpoint = load_checkpoint(saved)
    assert (checkpoint.step, checkpoint.tokens, checkpoint.val_loss, checkpoint.order) == (3, 9, 2.5, "backward")
    assert (checkpoint.stage, checkpoint.must_match, checkpoint.train_config) == ("pretraining", {"of": "a test"}, {"lr": 1.0})
    assert checkpoint.model_config == SHAPE
    assert checkpoint.tokenizer.sha256 == Tokenizer.load(dataset_folder).sha256
    ids = torch.arange(8)[None]
    assert torch.equal(checkpoint.make_model(torch.device("cpu")).eval()(ids), model(ids))


@pytest.mark.parametrize("damage", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(damage: float, saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    content["model"]["blocks.0.mlp.up.weight"][3, 2] = damage
    torch.save(content, saved)
    with pytest.raises(UserError, match="its blocks.0.mlp.up.weight has numbers that are not finite"):
        load_checkpoint(saved)


def test_a_missing_checkpoint_gives_the_command_or_names_the_checkpoints_beside_it(saved: Path) -> None:
    with pytest.raises(
        UserError, match=r"no checkpoint at out/xcoax/best_checkpoint.pt: no such file. .*make demo.* python train_xcoax.py$"
    ):
        load_checkpoint(Path("out/xcoax/best_checkpoint.pt"))
    with pytest.raises(UserError, match=r"To make this one: python finetune_xcoax.py --out-dir "):
        load_checkpoint(saved.with_name("last_checkpoint.pt"), "tuning")
    with pytest.raises(UserError, match=f"Its folder has {saved}: use that path"):
        load_checkpoint(saved.with_name("bset_checkpoint.pt"))


def test_a_missing_checkpoint_names_the_demo_if_it_is_there(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = tmp_path / "out" / "demo" / "best_checkpoint.pt"
    demo.parent.mkdir(parents=True)
    saved.rename(demo)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"There is out/demo: to use it, add the word demo"):
        load_checkpoint(Path("out/xcoax/best_checkpoint.pt"))
    for other in ("out/instruct/best_checkpoint.pt", "out/dmo/best_checkpoint.pt"):  # not tuned; a mistyped path
        with pytest.raises(UserError, match=r"no such file\. Check the path"):
            load_checkpoint(Path(other), "tuning" if "instruct" in other else "pretraining")


def test_a_folder_stands_for_its_best_checkpoint(saved: Path) -> None:
    assert load_checkpoint(saved.parent).path == saved


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"damaged \(.*\); nothing in it was run. Check the path"):
        load_checkpoint(saved)


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    written, path = tmp_path / "trace", tmp_path / "best_checkpoint.pt"
    if zipped:
        torch.save({"format": 1, "model": Bomb(written)}, path)
    else:
        path.write_bytes(pickle.dumps({"format": 1, "model": Bomb(written)}))
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        load_checkpoint(path)
    assert not written.exists()


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        load_checkpoint(path)
    torch.save({"format": 99}, path)
    with pytest.raises(UserError, match="checkpoint format 99"):
        load_checkpoint(path)
    path.write_text("just text")
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        load_checkpoint(path)


@pytest.mark.parametrize("is_damaged_in_between", [False, True])
def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(
    saved: Path, model: GPT, monkeypatch: pytest.MonkeyPatch, is_damaged_in_between: bool
) -> None:
    """torch opens the file twice: once it read the step of one checkpoint and mapped the weights of the next."""
    new = torch.load(saved, weights_only=True)
    torch.save({**new, "step": 4}, saved.with_name("new.part"))
    load = torch.load

    def load_and_replace(*arguments: object, **options: object) -> object:
        content = load(*arguments, **options)  # type: ignore[arg-type]
        if saved.with_name("new.part").exists():
            saved.with_name("new.part").rename(saved)
            return {} if is_damaged_in_between else content
        return content

    monkeypatch.setattr(torch, "load", load_and_replace)
    assert load_checkpoint(saved).step == 4
