"""Every number of every run, as frozen dataclasses. The comment behind a field is its help text."""

import math
import os
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from errors import require, require_not_negative, require_positive
from text import Order

MAX_VOCAB_SIZE = 65_536  # an id is stored as uint16
# 256 byte pieces, padding, unknown, the eight control symbols, and room for one piece that is a word's.
MIN_VOCAB_SIZE = 256 + 2 + 8 + 1
IGNORE = -1  # a target that is not counted in the loss
CHUNK_DOCUMENTS = 10_000  # documents in a chunk: the unit of work, of shuffling and of resuming
CHUNK_BYTES = 128 << 20  # a chunk of very long documents ends here, so that a worker's memory has a bound

Content = Literal["documents", "pairs"]  # what a folder of shards holds
Script = Literal["preprocess_xcoax.py", "train_xcoax.py", "preprocess_instruct.py", "finetune_xcoax.py"]  # those that make something
Stage = Literal["pretraining", "tuning"]  # what a model has been through
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
        require_positive(self, "n_layer", "n_head", "n_embed", "block_size", "rope_theta")
        require(self.n_embed % (2 * self.n_head) == 0, f"--n-embed {self.n_embed}: not a multiple of twice --n-head {self.n_head}")
        require(0 <= self.dropout < 1, f"--dropout {self.dropout}: from 0 up to, not including, 1")


@dataclass(frozen=True)
class SourceConfig:
    """What turning documents and turning instruction pairs into shards have in common."""

    data_dir: str  # Folder to write: the tokenizer, the shards, meta.json.
    dataset: str  # Data set on the hub, read as a stream.
    subset: str = ""  # Its configuration; empty for the only one.
    split: str = "train"  # Its split.
    input: tuple[str, ...] = ()  # Local files, folders or globs instead of the hub.
    val_share: float = 0.01  # Share held out for validation, chosen by a hash.
    vocab_size: int = 8888  # Number of token ids, the special ones and the 256 bytes included.
    num_chunks: int = 1000  # Stop after this many chunks of 10,000 documents or pairs.
    workers: int = os.cpu_count() or 1  # Processes that reverse, encode and write.
    order: Order = "backward"  # Word order of the shards; forward is for a twin model to compare with.
    seed: int = 0  # Seed of the shuffle within each chunk.
    retries: int = 6  # Attempts after a lost connection to the hub, with pauses of 1, 2, 4, ... seconds.

    def check(self) -> None:
        require_positive(self, "num_chunks", "workers")
        require(0 < self.val_share < 1, f"--val-share {self.val_share}: above 0 and below 1")
        require(
            MIN_VOCAB_SIZE <= self.vocab_size <= MAX_VOCAB_SIZE,
            f"--vocab-size {self.vocab_size}: from {MIN_VOCAB_SIZE} (bytes, special tokens, one more) to {MAX_VOCAB_SIZE} (16 bits)",
        )
        require_not_negative(self, "retries", "seed")


@dataclass(frozen=True)
class PreprocessConfig(SourceConfig):
    """Text in, token shards out."""

    data_dir: str = "data/xcoax"  # Folder to write: the tokenizer, the shards, meta.json.
    dataset: str = "HuggingFaceFW/fineweb"  # Data set on the hub, read as a stream.
    subset: str = "sample-100BT"  # Its configuration; empty for the only one.
    field: str = "text"  # Name of the field that holds the text, on the hub and in local files.
    input: tuple[str, ...] = ()  # Local files, folders or globs instead of the hub: .parquet .jsonl[.gz|.zst] .json .txt
    tokenizer: str = ""  # Use this tokenizer.model (or the one in this data folder) instead of training one.
    val_share: float = 0.005  # Share of the documents held out for validation, chosen by a hash of their text.
    sample_bytes: int = 64 << 20  # Bytes of text that the tokenizer is trained on.
    max_document_bytes: int = 1 << 20  # A longer document is cut at a line or word boundary, and counted.

    def check(self) -> None:
        super().check()
        require_positive(self, "sample_bytes")
        require(
            1024 <= self.max_document_bytes <= CHUNK_BYTES,
            f"--max-document-bytes {self.max_document_bytes}: from 1024 to {CHUNK_BYTES}",
        )


@dataclass(frozen=True)
class InstructConfig(SourceConfig):
    """Pairs of instruction and response in, token shards out."""

    data_dir: str = "data/instruct"  # Folder to write: the tokenizer, the shards, meta.json.
    dataset: str = "hakurei/open-instruct-v1"  # Data set on the hub, read as a stream.
    input: tuple[str, ...] = ()  # Local files, folders or globs instead of the hub: .parquet .jsonl[.gz|.zst] .json
    tokenizer: str = "data/xcoax"  # The pretrained model's: a finished data folder, a tokenizer.model or a checkpoint.
    val_share: float = 0.02  # Share of the pairs held out for validation, chosen by a hash of the response.
    block_size: int = 1024  # Context length of the pretrained model: a longer response is cut, a longer instruction dropped.

    def check(self) -> None:
        super().check()
        require(self.block_size >= 32, f"--block-size {self.block_size}: 32 or more")


@dataclass(frozen=True)
class LoopConfig:
    """What pretraining and tuning have in common: the loop, the optimizer, the device."""

    out_dir: str  # Folder for checkpoints, metrics.jsonl and loss.png.
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
    log_every: int = 10  # Steps between log lines.
    device: Device = "auto"  # Where to compute; auto takes the first there is of cuda, mps, cpu.
    dtype: Dtype = "auto"  # Number type of the computation; auto is bfloat16 where the device is fast at it, else float32.
    compile: bool = True  # torch.compile, where it works.
    checkpoint_activations: bool = False  # Compute each block twice in training and store less: for models that do not fit.
    seed: int = 0  # Seed of the weights and of the order of the batches.
    tensorboard: bool = False  # Write TensorBoard files too.
    verify: bool = False  # Compare every shard with its hash before training.
    plot: bool = False  # Draw loss.png from metrics.jsonl and stop.

    def check(self) -> None:
        require_positive(self, "batch_size", "grad_accum", "max_steps", "lr", "eval_every", "log_every")
        require(0 <= self.min_lr_share <= 1, f"--min-lr-share {self.min_lr_share}: from 0 to 1")
        require_not_negative(self, "warmup_steps", "weight_decay", "grad_clip")
        require(0 <= self.cooldown_share <= 1, f"--cooldown-share {self.cooldown_share}: from 0 to 1")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"--{name} {value}: from 0 up to, not including, 1")
        require(0 <= self.seed < 1 << 63, f"--seed {self.seed}: from 0 to {(1 << 63) - 1}")

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.grad_accum


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """Token shards in, checkpoints out."""

    data_dir: str = "data/xcoax"  # Folder that preprocess_xcoax.py finished.
    out_dir: str = "out/xcoax"  # Folder for checkpoints, metrics.jsonl and loss.png.
    order: Annotated[Order | None, tyro.conf.arg(metavar="{backward,forward}")] = None  # Refuse data of another word order.
    eval_tokens: int = 1 << 20  # Validation tokens in an evaluation, always the same ones.
    sample_tokens: int = 64  # Tokens of sampled text shown at an evaluation; 0 turns it off.
    sample_prompt: str = "The end."  # The ending (for a forward model: the beginning) that the shown text starts from.

    def check(self) -> None:
        super().check()
        self.model.check()
        require_positive(self, "eval_tokens")
        require_not_negative(self, "sample_tokens")


@dataclass(frozen=True)
class FinetuneConfig(LoopConfig):
    """A pretrained checkpoint and shards of instruction pairs in, checkpoints out."""

    model_path: str = "out/xcoax/best_checkpoint.pt"  # The pretrained checkpoint: architecture, tokenizer and word order are its own.
    data_dir: str = "data/instruct"  # Folder that preprocess_instruct.py finished.
    out_dir: str = "out/instruct"  # Folder for checkpoints, metrics.jsonl and loss.png.
    model: tyro.conf.Suppress[ModelConfig] = field(default_factory=ModelConfig)
    epochs: float = 3.0  # Times that every pair is seen.
    max_steps: tyro.conf.Suppress[int] = 1  # What the epochs come to.
    loss_on: Literal["instruction", "all"] = "instruction"  # Which tokens are learnt: the instruction's and its end, or the response's too.
    batch_size: int = 32  # Rows of the context length, each full of whole pairs, in a micro-batch; halved by itself when they do not fit.
    grad_accum: int = 1  # Micro-batches in a step.
    lr: float = 1e-4  # Peak learning rate.
    warmup_steps: int = 100  # Steps over which the learning rate rises from zero; at most a tenth of all.
    eval_every: int = 200  # Steps between evaluations, each of which saves the last and perhaps the best checkpoint.
    eval_pairs: int = 1000  # Held-out pairs in an evaluation, always the same ones.
    seed: int = 0  # Seed of the order of the batches.

    def check(self) -> None:
        super().check()
        require_positive(self, "epochs", "eval_pairs")


@dataclass(frozen=True)
class WriteConfig:
    """What both samplers have in common: the model, and how it chooses."""

    model_path: str  # The checkpoint to use.
    num_samples: int = 1  # Texts for each prompt.
    max_new_tokens: int = 200  # Tokens at most in each text.
    temperature: float = 0.7  # Above 1 bolder, below 1 more careful, 0 always the likeliest token.
    top_k: int = 0  # Choose among so many of the likeliest tokens only; 0 is off.
    top_p: float = 1.0  # Choose among the likeliest tokens that together have this probability only; 1 is off.
    min_p: float = 0.0  # Choose among tokens with at least this share of the likeliest one's probability only; 0 is off.
    seed: int | None = None  # The same seed writes the same; without one every text is another.
    raw: bool = False  # Show the text in the model's own order.
    device: Device = "auto"  # Where to compute; auto takes the first there is of cuda, mps, cpu.
    dtype: Dtype = "auto"  # Number type of the matrices; auto is bfloat16 where the device is fast at it, else float32.
    quantize: Literal["no", "int8"] = "no"  # int8: matrices of 8 bits, on a CPU faster for one text at a time.

    def check(self) -> None:
        require(1 <= self.num_samples <= 1000, f"--num-samples {self.num_samples}: from 1 to 1000")
        require_not_negative(self, "max_new_tokens")
        require(self.temperature >= 0 and math.isfinite(self.temperature), f"--temperature {self.temperature}: 0 or more")
        require(self.top_k >= 0, f"--top-k {self.top_k}: 0 (off) or more")
        require(0 < self.top_p <= 1, f"--top-p {self.top_p}: above 0, up to 1 (off)")
        require(0 <= self.min_p <= 1, f"--min-p {self.min_p}: from 0 (off) to 1")
        require(self.seed is None or 0 <= self.seed < 1 << 63, f"--seed {self.seed}: from 0 to {(1 << 63) - 1}")


@dataclass(frozen=True)
class SampleConfig(WriteConfig):
    """BackGPT: an ending in, what led there out."""

    model_path: str = "out/xcoax/best_checkpoint.pt"  # The checkpoint to use.
    prompt: str = ""  # The ending to write towards, once; without one you are asked, or the lines of a pipe are taken.


@dataclass(frozen=True)
class SampleInstructConfig(WriteConfig):
    """BackChat: a response in, the instruction that could have led to it out."""

    model_path: str = "out/instruct/best_checkpoint.pt"  # The tuned checkpoint to use.
    response: str = ""  # The response to explain, once; without one you are asked, or the lines of a pipe are taken.
    input: str = ""  # A file of responses to work through: .jsonl[.gz|.zst] .json .parquet .txt
    score: str = ""  # A file of pairs to score: how likely is the instruction, given the response?
    output: str = ""  # The file to write for --input or --score: .jsonl[.gz|.zst] or .parquet
    batch_size: int = 32  # Responses of a file that are worked on at once.

    def check(self) -> None:
        super().check()
        require_positive(self, "batch_size")
        given = [flag for flag in ("response", "input", "score") if getattr(self, flag)]
        require(len(given) < 2, f"--{' and --'.join(given)}: one of them")
        require(bool(self.output) == bool(self.input or self.score), "--output goes with --input or --score, and they with it")


@dataclass(frozen=True)
class BenchmarkConfig:
    """A shape in, its speeds out."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    prompt_tokens: int = 64  # Tokens that are read before anything is written.
    tokens: int = 64  # Tokens written in a run.
    rows: int = 32  # Texts at once.
    repeats: int = 5  # Runs of each kind.
    device: Device = "auto"  # Where to compute; auto takes the first there is of cuda, mps, cpu.
    dtype: Dtype = "auto"  # Number type of the matrices; auto is bfloat16 where the device is fast at it, else float32.

    def check(self) -> None:
        self.model.check()
        require_positive(self, "prompt_tokens", "rows", "repeats")
        require(self.tokens > 1, f"--tokens {self.tokens}: 2 or more")
        require(
            self.prompt_tokens + self.tokens <= self.model.block_size,
            f"--prompt-tokens {self.prompt_tokens} and --tokens {self.tokens}: more than --block-size {self.model.block_size} together",
        )


@dataclass(frozen=True)
class EvaluateConfig:
    """A checkpoint in, its report card out."""

    model_path: str = "out/instruct/best_checkpoint.pt"  # The checkpoint to judge, tuned or only pretrained.
    against: str = ""  # A second checkpoint to put beside it, such as its forward twin; it gets the same texts.
    out_dir: str = ""  # Folder for report.json, report.md and the pictures; empty: beside the checkpoint.
    data_dir: str = ""  # Documents, of which the held-out ones are judged; empty: those that the model was pretrained on.
    documents: int = 2000  # Held-out documents, evenly spread; 0: all.
    text: tuple[str, ...] = ()  # Texts to judge beside them: files, folders or globs of .txt .jsonl[.gz|.zst] .json .parquet
    stride: int = 0  # Tokens by which the window moves over a text longer than the context; 0: half the context.
    pairs_dir: str = ""  # Instruction pairs, of which the held-out ones are judged; empty: those that the model was tuned on.
    pairs: str = ""  # A file of other held-out pairs to judge instead: .jsonl[.gz|.zst] .json .parquet
    max_pairs: int = 1000  # Held-out pairs, evenly spread, that are scored and written for.
    ranked_pairs: int = 200  # Of these, how many instructions are looked for among others.
    candidates: tuple[int, ...] = (10, 100, 1000)  # Among how many others.
    mismatched_share: float = 0.5  # Share of the pairs that get another's response, to be told from the true ones.
    hellaswag: str = "Rowan/hellaswag"  # The tasks: a data set on the hub, or a file of its rows; empty: left out.
    hellaswag_tasks: int = 0  # Tasks, evenly spread; 0: all.
    max_new_tokens: int = 100  # Tokens at most in a generated instruction.
    batch_size: int = 16  # Rows of the context length that are read, or texts that are written, at once.
    seed: int = 0  # Seed of what is drawn: other instructions, mismatched pairs, resamples.
    device: Device = "auto"  # Where to compute; auto takes the first there is of cuda, mps, cpu.
    dtype: Dtype = "auto"  # Number type of the matrices; auto is bfloat16 where the device is fast at it, else float32.

    def check(self) -> None:
        require_positive(self, "max_pairs", "ranked_pairs", "max_new_tokens", "batch_size")
        require_not_negative(self, "documents", "stride", "hellaswag_tasks", "seed")
        require(min(self.candidates, default=0) > 0, f"--candidates {' '.join(map(str, self.candidates))}: one number or more, above 0")
        require(0 < self.mismatched_share < 1, f"--mismatched-share {self.mismatched_share}: above 0 and below 1")
        require(not (self.pairs and self.pairs_dir), "--pairs and --pairs-dir: one of them")
