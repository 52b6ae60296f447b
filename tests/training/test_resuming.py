"""Resuming a pretraining run: other data is refused or asked for, and a damaged or deleted log blocks nothing."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from config import ModelConfig, TrainConfig
from formats.checkpoint import load_checkpoint
from model import GPT
from system.errors import UserError
from tests.faults.states import same_state
from training.metrics import read_metrics
from training.pretraining import open_training_data, pretraining_task
from training.run import run_training

CONFIG = TrainConfig(
    model=ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=16, vocab_size=400),
    batch_size=2,
    grad_accum=1,
    max_steps=4,
    eval_every=2,
    eval_tokens=256,
    sample_tokens=4,
    compile=False,
    device="cpu",
    dtype="float32",
)


def train(folder: Path, out: Path, **changes: object) -> None:
    config = dataclasses.replace(CONFIG, data_dir=str(folder), out_dir=str(out), **changes)  # type: ignore[arg-type]  # by name
    out.mkdir(exist_ok=True)
    dataset, tokenizer = open_training_data(config)
    run_training(config, pretraining_task(config, dataset, tokenizer), lambda: GPT(config.model), "--max-steps")


@pytest.fixture
def other_folder(dataset_folder: Path, tmp_path: Path) -> Path:
    """The same tokenizer and shapes, with other text."""
    folder = tmp_path / "other"
    shutil.copytree(dataset_folder, folder)
    meta = json.loads((folder / "meta.json").read_text())
    shard = meta["shards"]["train"][0]
    ids = (folder / shard["name"]).read_bytes()
    (folder / shard["name"]).write_bytes(ids[: len(ids) // 4 * 2] * 2)
    shard["ids"] = (folder / shard["name"]).stat().st_size // 2
    shard["sha256"] = "0" * 64
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_other_data_is_refused_unless_asked_for(dataset_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(dataset_folder, out)
    with pytest.raises(UserError, match=r"the data was .*or resume on other data with --new-data"):
        train(other_folder, out, max_steps=6)
    with pytest.raises(UserError, match=r"--eval-tokens was 256, now 128"):
        train(dataset_folder, out, max_steps=6, eval_tokens=128)
    train(other_folder, out, max_steps=6, new_data=True)
    last, best = (load_checkpoint(out / f"{name}_checkpoint.pt") for name in ("last", "best"))
    assert last.step == best.step == 6  # losses on other data do not compare, so the first one on these is the best
    # From here on they are the data of this run, with and without the flag: a worse model never becomes the best one.
    for steps, flag in ((8, False), (10, True)):
        train(other_folder, out, max_steps=steps, new_data=flag, lr=1e3, grad_clip=0.0)
    assert load_checkpoint(out / "best_checkpoint.pt").step == 6


@pytest.mark.parametrize("max_steps", [4, 5])  # a run that has nothing left to do, and one that goes on
def test_a_run_killed_between_its_two_checkpoints_writes_the_best_one(dataset_folder: Path, tmp_path: Path, max_steps: int) -> None:
    train(dataset_folder, tmp_path, max_steps=4)
    best = tmp_path / "best_checkpoint.pt"
    before = best.read_bytes()
    best.unlink()
    train(dataset_folder, tmp_path, max_steps=max_steps, eval_every=100, lr=1e3, grad_clip=0.0)
    assert same_state(best.name, best.read_bytes(), before)


def test_a_checkpoint_of_an_earlier_version_resumes(dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It knows neither its data nor its order of sequences."""
    out = tmp_path / "out"
    train(dataset_folder, out)
    path = out / "last_checkpoint.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "identity": {}}, path)
    assert "order of sequences" not in capsys.readouterr().out
    train(dataset_folder, out, max_steps=6)
    assert load_checkpoint(path).step == 6
    assert capsys.readouterr().out.count("this run began in an earlier version's order of sequences") == 1
    train(dataset_folder, out, max_steps=8)  # from here on the order is known
    assert "order of sequences" not in capsys.readouterr().out


def test_another_order_of_sequences_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(dataset_folder, out)
    path = out / "last_checkpoint.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "identity": {**content["identity"], "the order of sequences": "as in the files"}}, path)
    with pytest.raises(UserError, match="the order of sequences was 'as in the files', now 'swap-or-not'"):
        train(dataset_folder, out, max_steps=6)


def test_bfloat16_resumes_in_float16_and_back(dataset_folder: Path, tmp_path: Path) -> None:
    for steps, dtype in ((2, "bfloat16"), (4, "float16"), (6, "float32"), (8, "float16")):
        train(dataset_folder, tmp_path / "out", max_steps=steps, dtype=dtype)
    assert load_checkpoint(tmp_path / "out" / "last_checkpoint.pt").step == 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"\xff\xfe\n" + path.read_bytes()),
        lambda path: path.write_bytes(b'{"loss": 1}\n[]\nnull\n{"step": "x", "tokens": 3}\n' + path.read_bytes()[:-20]),
    ],
)
def test_a_damaged_log_blocks_nothing(dataset_folder: Path, tmp_path: Path, damage: object) -> None:
    out = tmp_path / "out"
    train(dataset_folder, out)
    damage(out / "metrics.jsonl")  # type: ignore[operator]  # of the parameters
    train(dataset_folder, out)  # says that it is finished
    train(dataset_folder, out, max_steps=6)
    assert [row["step"] for row in read_metrics(out)][-1] == 6
    assert (out / "loss.png").is_file()


def test_line_separators_in_a_sample_keep_the_history(tmp_path: Path) -> None:
    rows = [{"step": step, "tokens": step, "sample": "a\u2028b\u2029c\x85d"} for step in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read_metrics(tmp_path) == rows
