"""Every number of every run: frozen dataclasses, presets, and the flags made from them.

The comment behind a field is its help text. A preset says only what differs from the published run.
"""

import dataclasses
import difflib
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from errors import BAD_FLAGS, UserError
from text import Order

MAX_VOCAB_SIZE = 65_536  # an id is stored as uint16
# 256 byte pieces, padding, unknown, the eight control symbols, and room for one piece that is a word's.
MIN_VOCAB_SIZE = 256 + 2 + 8 + 1
IGNORE = -1  # a target that is not counted in the loss
CHUNK_DOCUMENTS = 10_000  # documents in a chunk: the unit of work, of shuffling and of resuming
CHUNK_BYTES = 128 << 20  # a chunk of very long documents ends here, so that a worker's memory has a bound

Device = Literal["auto", "cuda", "mps", "cpu"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the GPT."""

    n_layer: int = 12  # Transformer blocks.
    n_head: int = 16  # Attention heads; they divide the width.
    n_embed: int = 1024  # Width of the model.
    block_size: int = 1024  # Context length in tokens.
    vocab_size: tyro.conf.Suppress[int] = 8888  # Token ids; taken from the data folder.
    dropout: float = 0.0  # Dropout on attention and on both branches of a block.
    qk_norm: bool = True  # RMSNorm on each head's queries and keys (on: the shape of Qwen3, off: of Llama).
    tie_embeddings: bool = True  # Use the embedding matrix as the output matrix too.
    rope_theta: float = 10_000.0  # Base of the rotary positions' wavelengths.

    @property
    def head_size(self) -> int:
        return self.n_embed // self.n_head

    @property
    def mlp_size(self) -> int:
        """Width of the SwiGLU layer: 8/3 of the model's, so that its three matrices hold what two of 4x would, in whole 64s."""
        return 64 * math.ceil(self.n_embed * 8 / 3 / 64)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding matrix: whole 64s are faster on a GPU. The rows past vocab_size are never chosen."""
        return 64 * math.ceil(self.vocab_size / 64)

    def check(self) -> None:
        _require_positive(self, "n_layer", "n_head", "n_embed", "block_size", "rope_theta")
        _require(
            self.n_embed % (2 * self.n_head) == 0,
            f"--n-head {self.n_head} and --n-embed {self.n_embed}: the width must be a multiple of twice the heads",
        )
        _require(0 <= self.dropout < 1, f"--dropout {self.dropout}: from 0 up to, not including, 1")


@dataclass(frozen=True)
class PreprocessConfig:
    """Text in, token shards out."""

    data_dir: str = "data/xcoax"  # Folder to write: the tokenizer, the shards, meta.json.
    dataset: str = "HuggingFaceFW/fineweb"  # Data set on the hub, read as a stream.
    subset: str = "sample-100BT"  # Its configuration; empty for the only one.
    split: str = "train"  # Its split.
    field: str = "text"  # Name of the field that holds the text, on the hub and in local files.
    input: tuple[str, ...] = ()  # Local files, folders or globs instead of the hub: .parquet .jsonl[.gz|.zst] .json .txt
    tokenizer: str = ""  # Use this tokenizer.model (or the one in this data folder) instead of training one.
    vocab_size: int = 8888  # Number of token ids, the special ones and the 256 bytes included.
    num_chunks: int = 1000  # Stop after this many chunks of 10,000 documents.
    workers: int = os.cpu_count() or 1  # Processes that reverse, encode and write.
    order: Order = "backward"  # Word order of the shards; forward is for a twin model to compare with.
    seed: int = 0  # Seed of the shuffle within each chunk.
    val_share: float = 0.005  # Share of the documents held out for validation, chosen by a hash of their text.
    sample_bytes: int = 64 << 20  # Bytes of text that the tokenizer is trained on.
    max_document_bytes: int = 1 << 20  # A longer document is cut at a line or word boundary, and counted.
    retries: int = 6  # Attempts after a lost connection to the hub, with pauses of 1, 2, 4, ... seconds.

    def check(self) -> None:
        _require_positive(self, "num_chunks", "workers", "sample_bytes")
        _require(
            MIN_VOCAB_SIZE <= self.vocab_size <= MAX_VOCAB_SIZE,
            f"--vocab-size {self.vocab_size}: from {MIN_VOCAB_SIZE} (bytes, special tokens, one more) to {MAX_VOCAB_SIZE} (16 bits)",
        )
        _require(0 < self.val_share < 1, f"--val-share {self.val_share}: between 0 and 1")
        _require(
            1024 <= self.max_document_bytes <= CHUNK_BYTES,
            f"--max-document-bytes {self.max_document_bytes}: from 1024 to {CHUNK_BYTES}",
        )
        _require(self.retries >= 0, f"--retries {self.retries}: 0 or more")
        _require(self.seed >= 0, f"--seed {self.seed}: 0 or more")


@dataclass(frozen=True)
class TrainConfig:
    """Token shards in, checkpoints out."""

    data_dir: str = "data/xcoax"  # Folder that preprocess_xcoax.py finished.
    out_dir: str = "out/xcoax"  # Folder for checkpoints, metrics.jsonl and loss.png.
    order: Annotated[Order | None, tyro.conf.arg(metavar="{backward,forward}")] = None  # Refuse data of another word order.
    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    batch_size: int = 64  # Sequences in a micro-batch; halved by itself when they do not fit on the GPU.
    grad_accum: int = 4  # Micro-batches in a step.
    max_steps: int = 20_000  # Optimizer steps.
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: Muon on the hidden matrices, AdamW on the rest; try --lr 3e-3.
    lr: float = 3e-4  # Peak learning rate.
    min_lr_share: float = 0.1  # Learning rate at the end, as a share of the peak.
    warmup_steps: int = 500  # Steps over which the learning rate rises from zero.
    schedule: Literal["cosine", "wsd"] = "cosine"  # After the warmup: a cosine, or constant and then a linear cooldown.
    cooldown_share: float = 0.4  # Share of the steps that the cooldown of wsd takes.
    beta1: float = 0.9  # AdamW's first decay.
    beta2: float = 0.95  # AdamW's second decay.
    weight_decay: float = 0.1  # On matrices only.
    grad_clip: float = 1.0  # Largest norm of the gradient; 0 turns clipping off.
    eval_every: int = 500  # Steps between evaluations, each of which saves the last and perhaps the best checkpoint.
    eval_tokens: int = 1 << 20  # Validation tokens in an evaluation, always the same ones.
    log_every: int = 10  # Steps between log lines.
    sample_tokens: int = 64  # Tokens of sampled text shown at an evaluation; 0 turns it off.
    sample_prompt: str = "The end."  # The ending (for a forward model: the beginning) that the shown text starts from.
    device: Device = "auto"  # Where to compute; auto takes the first there is of cuda, mps, cpu.
    dtype: Dtype = "auto"  # Number type of the computation; auto is bfloat16 where the device is fast at it, else float32.
    compile: bool = True  # torch.compile, where it works.
    checkpoint_activations: bool = False  # Compute each block twice and store less: for models that do not fit.
    seed: int = 0  # Seed of the weights and of the order of the batches.
    tensorboard: bool = False  # Write TensorBoard files too.
    verify: bool = False  # Compare every shard with its hash before training.
    plot: bool = False  # Draw loss.png from metrics.jsonl and stop.

    def check(self) -> None:
        self.model.check()
        _require_positive(self, "batch_size", "grad_accum", "max_steps", "lr", "eval_every", "eval_tokens", "log_every")
        _require(0 <= self.min_lr_share <= 1, f"--min-lr-share {self.min_lr_share}: from 0 to 1")
        _require(self.warmup_steps >= 0, f"--warmup-steps {self.warmup_steps}: 0 or more")
        _require(0 <= self.cooldown_share <= 1, f"--cooldown-share {self.cooldown_share}: from 0 to 1")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"--{name} {value}: from 0 up to, not including, 1")
        for name in ("weight_decay", "grad_clip", "sample_tokens"):
            value = getattr(self, name)
            _require(value >= 0, f"--{name.replace('_', '-')} {value}: 0 or more")
        _require(0 <= self.seed < 1 << 63, f"--seed {self.seed}: from 0 to {(1 << 63) - 1}")

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.grad_accum


PREPROCESS_PRESETS = {
    "xcoax": PreprocessConfig(),
    "tinystories": PreprocessConfig(data_dir="data/tinystories", dataset="roneneldan/TinyStories", subset="", vocab_size=4096),
    "demo": PreprocessConfig(data_dir="data/demo", input=("data/demo-world/stories.jsonl",), vocab_size=1024, val_share=0.05),
}

TRAIN_PRESETS = {
    "xcoax": TrainConfig(),
    "tinystories": TrainConfig(
        data_dir="data/tinystories",
        out_dir="out/tinystories",
        model=ModelConfig(n_layer=8, n_head=8, n_embed=512, block_size=512),
        grad_accum=1,
        lr=1e-3,
        warmup_steps=200,
    ),
    "demo": TrainConfig(
        data_dir="data/demo",
        out_dir="out/demo",
        model=ModelConfig(n_layer=4, n_head=4, n_embed=128, block_size=128),
        batch_size=32,
        grad_accum=1,
        max_steps=400,
        optimizer="muon",
        lr=3e-3,
        min_lr_share=0.0,
        warmup_steps=20,
        schedule="wsd",
        eval_every=200,
        eval_tokens=1 << 15,
        log_every=20,
        sample_tokens=48,
        compile=False,
    ),
}

Config = TypeVar("Config", PreprocessConfig, TrainConfig)


def read_flags(presets: dict[str, Config], description: str | None, arguments: list[str] | None = None) -> Config:
    """The configuration of a run: a preset (the first word, if it is no flag) with the flags laid over it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = "xcoax"
    if arguments and not arguments[0].startswith("-"):
        name, arguments = arguments[0], arguments[1:]
    if name not in presets:
        nearest = difflib.get_close_matches(name, presets, n=1, cutoff=0.0)[0]
        raise UserError(f"no preset {name!r}. Perhaps you meant {nearest!r}; there are: {', '.join(presets)}", BAD_FLAGS)
    preset = presets[name]
    usage = f"{description}\nPresets, named first: {', '.join(presets)}. The defaults below are those of {name!r}."
    config = tyro.cli(type(preset), default=preset, args=arguments, description=usage)
    config.check()
    return config


def describe(config: object, *facts: str, unused: tuple[str, ...] = ()) -> str:
    """The resolved configuration for a person to read before an hour is spent on it."""
    values = _flatten(dataclasses.asdict(config))  # type: ignore[call-overload]
    pairs = [f"{key}={value}" for key, value in values.items() if key not in unused]
    lines: list[str] = []
    line = " "
    for pair in pairs:
        if len(line) + len(pair) > 118:
            lines, line = [*lines, line], " "
        line += f" {pair}"
    return "\n".join([f"{type(config).__name__}:", *lines, line, *(f"  {fact}" for fact in facts)])


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two sets of settings, in words."""
    return [f"{name} was {was.get(name)!r}, now {now[name]!r}" for name in now if was.get(name) != now[name]]


def command_for(script: Literal["preprocess_xcoax.py", "train_xcoax.py"], folder: Path) -> str:
    """The command that makes a data folder or a folder of checkpoints."""
    if script == "preprocess_xcoax.py":
        flag, folders = "--data-dir", {name: preset.data_dir for name, preset in PREPROCESS_PRESETS.items()}
    else:
        flag, folders = "--out-dir", {name: preset.out_dir for name, preset in TRAIN_PRESETS.items()}
    for name, made in folders.items():
        if Path(made) == folder:
            return f"python {script}" + (f" {name}" if name != "xcoax" else "")
    return f"python {script} {flag} {folder}"


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(value if isinstance(value, dict) else {key: value})
    return flat


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message, BAD_FLAGS)


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        flag = f"--{name.replace('_', '-')}"
        _require(value > 0 and math.isfinite(value), f"{flag} {value}: above 0")
