"""The presets, each only what differs from the published run; and the command that makes a folder."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from config import (
    BenchmarkConfig,
    EvaluateConfig,
    ExportConfig,
    FinetuneConfig,
    InstructConfig,
    ModelConfig,
    PreprocessConfig,
    SampleConfig,
    SampleInstructConfig,
    ScoreConfig,
    Script,
    TrainConfig,
)

# The recipe that won in experiments/.
FAST: dict[str, Any] = {
    "optimizer": "muon",
    "momentum": 0.9,
    "beta2": 0.99,
    "schedule": "wsd",
    "cooldown_share": 0.6,
    "min_lr_share": 0.0,
}


def rate_at_width(width: int, rate: float) -> float:
    """A learning rate of Muon, found at width 256, for another width: it falls with the root of the width."""
    return round(rate * math.sqrt(256 / width), 4)


def _train_faster(preset: TrainConfig) -> TrainConfig:
    """The same model by the fast recipe."""
    width = preset.model.n_embed
    return dataclasses.replace(preset, **FAST, lr=rate_at_width(width, 5e-3), adamw_lr=rate_at_width(width, 2e-2))


_PREPROCESS = {
    "xcoax": PreprocessConfig(),
    "tinystories": PreprocessConfig(data_dir="data/tinystories", dataset="roneneldan/TinyStories", subset="", vocab_size=4096),
    "demo": PreprocessConfig(data_dir="data/demo", input=("data/demo-world/stories.jsonl",), vocab_size=1024, val_share=0.05),
    "small": PreprocessConfig(data_dir="data/small", dataset="wikimedia/wikipedia", subset="20231101.en", num_chunks=15),
    "fineweb": PreprocessConfig(data_dir="data/fineweb", subset="CC-MAIN-2024-51", vocab_size=50_257),
    "gibberish": PreprocessConfig(data_dir="data/gibberish", dataset="HuggingFaceFW/fineweb-edu", subset="default", vocab_size=52_000),
    "babygpt": PreprocessConfig(data_dir="data/babygpt", subset="sample-10BT", vocab_size=50_257),
}

_TRAIN = {
    "xcoax": TrainConfig(),
    "tinystories": TrainConfig(
        data_dir="data/tinystories",
        out_dir="out/tinystories",
        model=ModelConfig(n_layer=8, n_head=8, n_embed=512, block_size=512),
        grad_accum=1,
        lr=1e-3,
        warmup_steps=200,
    ),
    "demo": _train_faster(
        TrainConfig(
            data_dir="data/demo",
            out_dir="out/demo",
            model=ModelConfig(n_layer=4, n_head=4, n_embed=128, block_size=128),
            batch_size=32,
            grad_accum=1,
            max_steps=400,
            warmup_steps=20,
            eval_every=200,
            eval_tokens=1 << 15,
            log_every=20,
            sample_tokens=48,
            compile=False,
        )
    ),
    "small": _train_faster(
        TrainConfig(
            data_dir="data/small",
            out_dir="out/small",
            model=ModelConfig(n_layer=6, n_head=4, n_embed=256, block_size=512),
            batch_size=4,
            grad_accum=1,
            max_steps=15_000,
            warmup_steps=100,
            eval_every=1000,
            eval_tokens=1 << 17,
            log_every=20,
            sample_tokens=32,
        )
    ),
    "fineweb": TrainConfig(
        data_dir="data/fineweb",
        out_dir="out/fineweb",
        model=ModelConfig(n_layer=8, n_head=8, n_embed=512),
        batch_size=128,
        grad_accum=3,
        lr=7e-4,
    ),
    "gibberish": TrainConfig(
        data_dir="data/gibberish",
        out_dir="out/gibberish",
        model=ModelConfig(n_layer=24, n_head=12, n_embed=1536, tie_embeddings=False, mlp_size=6144),
        batch_size=72,
        lr=6e-4,
        eval_every=1000,
        dtype="float16",
        checkpoint_activations=True,
    ),
    "babygpt": TrainConfig(
        data_dir="data/babygpt",
        out_dir="out/babygpt",
        model=ModelConfig(n_layer=12, n_head=12, n_embed=768),
        lr=6e-4,
    ),
}

_INSTRUCT = {
    "xcoax": InstructConfig(),
    "tinystories": InstructConfig(data_dir="data/tinystories-instruct", tokenizer="data/tinystories", vocab_size=4096, block_size=512),
    "demo": InstructConfig(
        data_dir="data/demo-instruct",
        input=("data/demo-world/pairs_train.jsonl",),
        tokenizer="data/demo",
        vocab_size=1024,
        val_share=0.05,
        block_size=128,
    ),
    "small": InstructConfig(
        data_dir="data/small-instruct", dataset="tatsu-lab/alpaca", tokenizer="data/small", block_size=512, val_share=0.06
    ),
    "fineweb": InstructConfig(data_dir="data/fineweb-instruct", tokenizer="data/fineweb", vocab_size=50_257),
    "gibberish": InstructConfig(data_dir="data/gibberish-instruct", tokenizer="data/gibberish", vocab_size=52_000),
    "babygpt": InstructConfig(data_dir="data/babygpt-instruct", tokenizer="data/babygpt", vocab_size=50_257),
}

_FINETUNE = {
    "xcoax": FinetuneConfig(),
    "tinystories": FinetuneConfig(
        model_path="out/tinystories/best_checkpoint.pt", data_dir="data/tinystories-instruct", out_dir="out/tinystories-instruct"
    ),
    "demo": FinetuneConfig(
        model_path="out/demo/best_checkpoint.pt",
        data_dir="data/demo-instruct",
        out_dir="out/demo-instruct",
        epochs=8,
        batch_size=16,
        lr=5e-3,  # below the rates of its pretraining
        adamw_lr=2e-2,
        warmup_steps=20,
        eval_every=200,
        log_every=20,
        compile=False,
        **FAST,
    ),
    "small": FinetuneConfig(
        model_path="out/small/best_checkpoint.pt",
        data_dir="data/small-instruct",
        out_dir="out/small-instruct",
        contrast=0.1,
        batch_size=16,
        lr=2e-3,
        adamw_lr=4e-3,
        warmup_steps=20,
        eval_pairs=400,
        **FAST,
    ),
    **{
        name: FinetuneConfig(model_path=f"out/{name}/best_checkpoint.pt", data_dir=f"data/{name}-instruct", out_dir=f"out/{name}-instruct")
        for name in ("fineweb", "gibberish", "babygpt")
    },
}

_WITH_FAST = ("xcoax", "tinystories")  # NAME-fast trains the same model by the fast recipe

PREPROCESS_PRESETS = _PREPROCESS | {f"{name}-fast": _PREPROCESS[name] for name in _WITH_FAST}

TRAIN_PRESETS = _TRAIN | {
    f"{name}-fast": dataclasses.replace(_train_faster(_TRAIN[name]), out_dir=f"{_TRAIN[name].out_dir}-fast") for name in _WITH_FAST
}

INSTRUCT_PRESETS = _INSTRUCT | {f"{name}-fast": _INSTRUCT[name] for name in _WITH_FAST}

FINETUNE_PRESETS = _FINETUNE | {
    f"{name}-fast": dataclasses.replace(
        _FINETUNE[name],
        model_path=f"{TRAIN_PRESETS[f'{name}-fast'].out_dir}/best_checkpoint.pt",
        out_dir=f"{_FINETUNE[name].out_dir}-fast",
    )
    for name in _WITH_FAST
}

# These models come with the repository: by the preset `small` they are sampled, evaluated and exported, and score pairs.
BACKGPT_SMALL, BACKCHAT_SMALL = "assets/small/backgpt", "assets/small/backchat"

SAMPLE_PRESETS = {
    name: SampleConfig(model_path=f"{preset.out_dir}/best_checkpoint.pt", max_new_tokens=min(500, preset.model.block_size // 2))
    for name, preset in TRAIN_PRESETS.items()
} | {"small": SampleConfig(model_path=BACKGPT_SMALL, max_new_tokens=256, temperature=0.6)}

SAMPLE_INSTRUCT_PRESETS = {
    name: SampleInstructConfig(model_path=f"{preset.out_dir}/best_checkpoint.pt", max_new_tokens=48 if name == "demo" else 500)
    for name, preset in FINETUNE_PRESETS.items()
} | {"small": SampleInstructConfig(model_path=BACKCHAT_SMALL, max_new_tokens=100, temperature=0.3)}

SCORE_PRESETS = {name: ScoreConfig(model_path=preset.model_path) for name, preset in SAMPLE_INSTRUCT_PRESETS.items()}

EXPORT_PRESETS = {name: ExportConfig(model_path=f"{preset.out_dir}/best_checkpoint.pt") for name, preset in FINETUNE_PRESETS.items()} | {
    "small": ExportConfig(model_path=BACKCHAT_SMALL, out_dir="out/small-hf", license="cc-by-nc-4.0")
}

BENCHMARK_PRESETS = {
    name: BenchmarkConfig(model=dataclasses.replace(preset.model, vocab_size=PREPROCESS_PRESETS[name].vocab_size), train=preset)
    for name, preset in TRAIN_PRESETS.items()
}

EVALUATE_PRESETS = {
    name: EvaluateConfig(model_path=(f"{preset.out_dir}/best_checkpoint.pt",)) for name, preset in FINETUNE_PRESETS.items()
} | {
    "demo": EvaluateConfig(
        model_path=(f"{FINETUNE_PRESETS['demo'].out_dir}/best_checkpoint.pt",),
        against=(FINETUNE_PRESETS["demo"].model_path,),
        documents=300,
        pairs="data/demo-world/pairs_held_out.jsonl",
        candidates=(10, 100),
        hellaswag="",
        max_new_tokens=48,
    ),
    "small": EvaluateConfig(
        model_path=(BACKCHAT_SMALL,),
        against=(BACKGPT_SMALL,),
        out_dir="out/small-report",
        text=("assets/small/texts.jsonl",),
        pairs="assets/small/pairs.jsonl",
        candidates=(10, 100),
        hellaswag="",
        max_new_tokens=60,
    ),
}


def command_for(script: Script, folder: Path) -> str:
    """The command that makes a data folder or a folder of checkpoints."""
    folders: dict[Script, dict[str, str]] = {
        "preprocess_xcoax.py": {name: preset.data_dir for name, preset in PREPROCESS_PRESETS.items()},
        "preprocess_instruct.py": {name: preset.data_dir for name, preset in INSTRUCT_PRESETS.items()},
        "train_xcoax.py": {name: preset.out_dir for name, preset in TRAIN_PRESETS.items()},
        "finetune_xcoax.py": {name: preset.out_dir for name, preset in FINETUNE_PRESETS.items()},
    }
    for name, made in folders[script].items():
        if Path(made) == folder:
            return f"python {script}" + (f" {name}" if name != "xcoax" else "")
    return f"python {script} {'--data-dir' if script.startswith('preprocess') else '--out-dir'} {folder}"
