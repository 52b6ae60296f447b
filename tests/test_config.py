"""The numbers of every run: the published defaults, impossible values that are refused, and help for every flag."""

import dataclasses
import json
import re

import pytest

from config import (
    BenchmarkConfig,
    EvaluateConfig,
    FinetuneConfig,
    InstructConfig,
    ModelConfig,
    PreprocessConfig,
    SampleConfig,
    SampleInstructConfig,
    ScoreConfig,
    TrainConfig,
)
from presets import (
    BENCHMARK_PRESETS,
    EVALUATE_PRESETS,
    FINETUNE_PRESETS,
    INSTRUCT_PRESETS,
    PREPROCESS_PRESETS,
    SAMPLE_INSTRUCT_PRESETS,
    SAMPLE_PRESETS,
    SCORE_PRESETS,
    TRAIN_PRESETS,
)
from system.command_line import Checked, read_flags
from system.errors import UserError

WRONG_ENCODINGS: list[Checked] = [
    PreprocessConfig(encoding="base64"),
    InstructConfig(encoding="base64"),
    SampleConfig(encoding="base64"),
    ScoreConfig(pairs="x", output="y", encoding="base64"),
    EvaluateConfig(encoding="base64"),
]
ALL_PRESETS: list[dict[str, Checked]] = [
    dict(PREPROCESS_PRESETS),
    dict(TRAIN_PRESETS),
    dict(INSTRUCT_PRESETS),
    dict(FINETUNE_PRESETS),
    dict(SAMPLE_PRESETS),
    dict(SAMPLE_INSTRUCT_PRESETS),
    dict(SCORE_PRESETS),
    dict(EVALUATE_PRESETS),
    dict(BENCHMARK_PRESETS),
]


def train_flags(*arguments: str) -> TrainConfig:
    return read_flags(TRAIN_PRESETS, "Train.", list(arguments))


def test_the_published_run_is_the_default() -> None:
    config = train_flags()
    shape = config.model
    assert (shape.n_layer, shape.n_head, shape.n_embed, shape.block_size, shape.vocab_size) == (12, 16, 1024, 1024, 8888)
    assert (config.batch_size, config.grad_accum, config.optimizer, config.beta1, config.beta2) == (64, 4, "adamw", 0.9, 0.95)
    assert (config.lr, config.grad_clip, config.schedule) == (3e-4, 1.0, "cosine")
    preprocess = read_flags(PREPROCESS_PRESETS, "", ["--vocab-size", "8888", "--num-chunks", "1000"])
    assert preprocess == PREPROCESS_PRESETS["xcoax"]
    assert (preprocess.dataset, preprocess.subset) == ("HuggingFaceFW/fineweb", "sample-100BT")


def test_every_script_has_the_same_presets_and_each_passes_its_own_check() -> None:
    for presets in ALL_PRESETS:
        assert list(presets) == [
            "xcoax",
            "tinystories",
            "demo",
            "small",
            "fineweb",
            "gibberish",
            "babygpt",
            "xcoax-fast",
            "tinystories-fast",
        ]
        for config in presets.values():
            if isinstance(config, ScoreConfig):  # which file to score is never in a preset
                config = dataclasses.replace(config, pairs="a.jsonl", output="b.jsonl")
            config.check()


@pytest.mark.parametrize(
    "flags",
    [
        "--n-head 7",
        "--n-layer 2147483648",
        "--block-size 0",
        "--n-embed 2147483648",
        "--mlp-size 2147483648",
        "--batch-size 2147483648",
        "--hours 10001",
        "--n-embed 0",
        "--n-kv-head 3",
        "--n-kv-head 0",
        "--mlp-size 0",
        "--batch-size 0",
        "--grad-accum -1",
        "--lr -1",
        "--lr nan",
        "--lr inf",
        "--adamw-lr 0",
        "--adamw-lr inf",
        "--momentum 1",
        "--min-lr-share 2",
        "--dropout 1",
        "--beta2 1",
        "--weight-decay nan",
        "--max-steps 0",
        "--seed -1",
        "--seed 99999999999999999999",
    ],
)
def test_impossible_training_is_refused(flags: str) -> None:
    with pytest.raises(UserError, match=flags) as caught:
        train_flags(*flags.split())
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("flags", ["--vocab-size 266", "--vocab-size 65537", "--num-chunks 0", "--workers 0", "--val-share 1", "--seed -1"])
def test_impossible_preprocessing_is_refused(flags: str) -> None:
    with pytest.raises(UserError, match=flags) as caught:
        read_flags(PREPROCESS_PRESETS, "", flags.split())
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (InstructConfig(block_size=31), "--block-size 31: 32 or more"),
        (FinetuneConfig(epochs=0), "--epochs 0: a number above 0"),
        (FinetuneConfig(epochs=1e308), r"--epochs 1e\+308: at most 1,000,000"),
        (FinetuneConfig(lr=1e6), r"--lr 1e\+06 with --weight-decay 0.1: their product is above 1, .* Try a lower --lr"),
        (FinetuneConfig(weight_decay=1e9), r"--lr 0.0001 with --weight-decay 1e\+09: their product is above 1"),
        (PreprocessConfig(workers=1 << 31), "--workers 2147483648: at most 1,000"),
        (SampleInstructConfig(temperature=-1), "--temperature -1: from 0 to 10"),
        (SampleInstructConfig(top_p=0), "--top-p 0: above 0, up to 1"),
        (SampleInstructConfig(num_samples=1001), "--num-samples 1001: from 1 to 1000"),
        (SampleInstructConfig(response="x", input="y"), "--response and --input: use only one of them"),
        (SampleInstructConfig(with_scores=True), "--with-scores: only with --input"),
        (SampleInstructConfig(input="x", output="y", format="jsonl"), "--format jsonl: not with --input"),
        (SampleConfig(prompt="x", input="y"), "--prompt and --input: use only one of them"),
        (SampleConfig(output="y"), "--output needs --input; for one text or a pipe, use --format jsonl > FILE"),
        (SampleConfig(input="x", output="y", batch_size=0), "--batch-size 0: a number above 0"),
        *((config, "--encoding base64: not one that Python knows, such as utf-8, utf-16") for config in WRONG_ENCODINGS),
        (ScoreConfig(rerank="x.CSV.gz", output="y"), "--rerank x.CSV.gz: a cell of a table holds no list of answers. Use .jsonl"),
        (SampleInstructConfig(input="x"), "name the file to write with --output"),
        (SampleInstructConfig(score="x"), "python score_xcoax.py --pairs x --output scored.jsonl"),
        (ScoreConfig(), "name a file of pairs with --pairs, or a file of answers with --rerank"),
        (ScoreConfig(pairs="x", rerank="y"), "--pairs and --rerank: use only one of them"),
        (ScoreConfig(pairs="x"), "name the file to write with --output"),
        (ScoreConfig(pairs="x", output="y", batch_size=0), "--batch-size 0: a number above 0"),
        (ScoreConfig(rerank="x.TXT", output="y"), "--rerank x.TXT: a .txt file has no lists of answers. Use .jsonl"),
        (EvaluateConfig(candidates=(10, 0)), "--candidates 10 0: one or more numbers above 0"),
        (EvaluateConfig(model_path=()), "--model-path: name one checkpoint or more"),
        (EvaluateConfig(("a", "b"), ("c",)), "--model-path names 2 and --against 1: as many of each, compared pair by pair"),
        (EvaluateConfig(("a",), ("b", "c")), "--model-path names 1 and --against 2: as many of each, compared pair by pair"),
        (EvaluateConfig(pairs="x", pairs_dir="y"), "--pairs and --pairs-dir: use only one of them"),
        (BenchmarkConfig(tokens=1), "--tokens 1: 2 or more"),
        (BenchmarkConfig(prompt_tokens=1000), "more than --block-size 1024 together"),
    ],
)
def test_impossible_values_of_other_scripts_are_refused(config: Checked, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        config.check()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("presets", ALL_PRESETS, ids=lambda presets: type(presets["xcoax"]).__name__)
def test_every_flag_has_help(presets: dict[str, Checked], capsys: pytest.CaptureFixture[str]) -> None:
    config = presets["xcoax"]
    with pytest.raises(SystemExit) as caught:
        read_flags(presets, "What it does.", ["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(config):  # type: ignore[arg-type]  # all are dataclasses
        if field.name not in ("model", "train") and (field.name, type(config)) != ("max_steps", FinetuneConfig):  # computed from the epochs
            assert f"--{field.name.replace('_', '-')}" in re.split("[ ,]", text)
    assert ("Transformer blocks. (default: 12)" in text) == isinstance(config, TrainConfig | BenchmarkConfig)


def test_several_models_may_be_named_to_evaluate() -> None:
    """Also after a first word that is a checkpoint; --against without a name, or with an empty one, undoes that of the preset."""
    config = read_flags(EVALUATE_PRESETS, "", ["a.pt", "b.pt", "--against", "c.pt", "d.pt", "--data-dir", "data/x", "data/y"])
    assert (config.model_path, config.against, config.data_dir) == (("a.pt", "b.pt"), ("c.pt", "d.pt"), ("data/x", "data/y"))
    for flags in (["--against"], ["--against", ""]):
        assert not any(read_flags(EVALUATE_PRESETS, "", ["demo", *flags]).against)


def test_a_configuration_survives_json() -> None:
    config = train_flags("--n-layer", "5", "--no-qk-norm")
    saved = json.loads(json.dumps(dataclasses.asdict(config)))
    assert ModelConfig(**saved.pop("model")) == config.model == ModelConfig(n_layer=5, qk_norm=False)
    assert dataclasses.replace(TrainConfig(**saved), model=config.model) == config
