"""Flags: what is impossible is refused before any work, and names the flag."""

import dataclasses
import json
import re

import pytest

from config import FinetuneConfig, ModelConfig, TrainConfig
from errors import UserError
from flags import describe, differences, read_flags
from presets import FINETUNE_PRESETS, INSTRUCT_PRESETS, PREPROCESS_PRESETS, TRAIN_PRESETS


def train_flags(*arguments: str) -> TrainConfig:
    return read_flags(TRAIN_PRESETS, "Train.", list(arguments))


def test_a_preset_comes_first_and_flags_change_it() -> None:
    assert train_flags() == TRAIN_PRESETS["xcoax"]
    config = train_flags("tinystories", "--max-steps", "7", "--n-layer", "3")
    assert (config.max_steps, config.model.n_layer) == (7, 3)
    assert config.model.n_embed == TRAIN_PRESETS["tinystories"].model.n_embed


def test_the_published_run_is_the_default() -> None:
    config = train_flags()
    shape = config.model
    assert (shape.n_layer, shape.n_head, shape.n_embed, shape.block_size, shape.vocab_size) == (12, 16, 1024, 1024, 8888)
    assert (config.batch_size, config.grad_accum, config.optimizer, config.beta1, config.beta2) == (64, 4, "adamw", 0.9, 0.95)
    assert (config.lr, config.grad_clip, config.schedule) == (3e-4, 1.0, "cosine")
    preprocess = read_flags(PREPROCESS_PRESETS, "", ["--vocab-size", "8888", "--num-chunks", "1000"])
    assert preprocess == PREPROCESS_PRESETS["xcoax"]
    assert (preprocess.dataset, preprocess.subset) == ("HuggingFaceFW/fineweb", "sample-100BT")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--n-head 7", "--n-head 7"),
        ("--n-embed 0", "--n-embed 0"),
        ("--batch-size 0", "--batch-size 0"),
        ("--grad-accum -1", "--grad-accum -1"),
        ("--lr -1", "--lr -1"),
        ("--lr nan", "--lr nan"),
        ("--lr inf", "--lr inf"),
        ("--min-lr-share 2", "--min-lr-share 2"),
        ("--dropout 1", "--dropout 1"),
        ("--beta2 1", "--beta2 1"),
        ("--weight-decay nan", "--weight-decay nan"),
        ("--max-steps 0", "--max-steps 0"),
        ("--seed -1", "--seed -1"),
        ("--seed 99999999999999999999", "--seed 99999999999999999999"),
    ],
)
def test_impossible_training_is_refused(flags: str, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        train_flags(*flags.split())
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("flags", ["--vocab-size 266", "--vocab-size 65537", "--num-chunks 0", "--workers 0", "--val-share 1", "--seed -1"])
def test_impossible_preprocessing_is_refused(flags: str) -> None:
    with pytest.raises(UserError, match=flags) as caught:
        read_flags(PREPROCESS_PRESETS, "", flags.split())
    assert caught.value.exit_code == 2


def test_an_unknown_preset_gives_the_nearest() -> None:
    with pytest.raises(UserError, match="Perhaps you meant 'tinystories'") as caught:
        train_flags("tinystory")
    assert caught.value.exit_code == 2


def test_an_unknown_flag_gives_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train_flags("--n-layers", "4")
    assert caught.value.code == 2
    assert "--n-layer" in capsys.readouterr().err


def test_every_flag_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for config, ask in (
        (PREPROCESS_PRESETS["xcoax"], lambda: read_flags(PREPROCESS_PRESETS, "What it does.", ["--help"])),
        (INSTRUCT_PRESETS["xcoax"], lambda: read_flags(INSTRUCT_PRESETS, "What it does.", ["--help"])),
        (FINETUNE_PRESETS["xcoax"], lambda: read_flags(FINETUNE_PRESETS, "What it does.", ["--help"])),
        (TRAIN_PRESETS["xcoax"], lambda: read_flags(TRAIN_PRESETS, "What it does.", ["--help"])),
    ):
        with pytest.raises(SystemExit) as caught:
            ask()
        assert caught.value.code == 0
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        for field in dataclasses.fields(config):
            if field.name != "model" and (field.name, type(config)) != ("max_steps", FinetuneConfig):  # epochs decide
                assert f"--{field.name.replace('_', '-')}" in re.split("[ ,]", text)
    assert "Transformer blocks. (default: 12)" in text


def test_a_configuration_survives_json() -> None:
    config = train_flags("--n-layer", "5", "--no-qk-norm")
    saved = json.loads(json.dumps(dataclasses.asdict(config)))
    assert ModelConfig(**saved.pop("model")) == config.model == ModelConfig(n_layer=5, qk_norm=False)
    assert dataclasses.replace(TrainConfig(**saved), model=config.model) == config


def test_differences_are_put_into_words() -> None:
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": "x"}) == ["b was 2, now 3", "c was None, now 'x'"]


def test_the_resolved_configuration_is_readable() -> None:
    text = describe(train_flags("--n-layer", "5"), "a fact")
    assert "n_layer=5" in text
    assert text.endswith("  a fact")
    assert max(map(len, text.splitlines())) <= 120
