"""Every number of every run, as frozen dataclasses. The comment behind a field is its help text."""

import math
import shlex
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from system.device_names import Device, Dtype
from system.encodings import is_text_encoding
from system.errors import require, require_at_most, require_not_negative, require_positive
from system.processors import usable_processors

MIN_VOCAB_SIZE, MAX_VOCAB_SIZE = 256 + 2 + 8 + 1, 1 << 16  # bytes, padding and unknown, control symbols, one more; what uint16 holds
MAX_BLOCK_SIZE = 1 << 17  # tokens; the rotary tables grow with it
MAX_LAYERS, MAX_WIDTH, MAX_MLP_SIZE = 1 << 10, 1 << 16, 1 << 20  # far above any model that one machine trains
MAX_STEP_TOKENS = 1 << 28  # in a step: their ids are in memory, those of the next step too
MAX_HOURS, MAX_EPOCHS, MAX_WORKERS = 10_000, 1_000_000, 1000
NORM_EPSILON = 1e-6  # of every RMSNorm
IGNORE_INDEX = -1  # a target that the loss ignores
CHUNK_DOCUMENTS = 10_000  # documents in a chunk, the unit of work, shuffling and resuming
CHUNK_BYTES = 128 << 20  # a chunk of very long documents ends here, which bounds the memory of a worker
PATHS = ("out_dir", "data_dir", "model_path", "init_from", "hellaswag", "like")  # may differ between machines; never published

Order = Literal["backward", "forward"]  # backward: word order reversed; forward: text as it is
Content = Literal["documents", "pairs"]  # what a data folder holds
Script = Literal[
    "preprocess_xcoax.py", "train_xcoax.py", "preprocess_instruct.py", "finetune_xcoax.py"
]  # those that make data or checkpoints
Part = Literal["preprocess", "train", "generate", "score"]  # of the benchmark
Stage = Literal["pretraining", "tuning"]  # the last training that a model had


def _require_encoding(name: str) -> None:
    require(is_text_encoding(name), f"--encoding {name}: not one that Python knows, such as utf-8, utf-16, cp1252, latin-1 or shift_jis")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the GPT."""

    n_layer: int = 12  # Transformer blocks.
    n_head: int = 16  # Attention heads; twice their number divides the width.
    n_embed: int = 1024  # Width of the model.
    block_size: int = 1024  # Context length in tokens.
    vocab_size: tyro.conf.Suppress[int] = 8888  # Token ids; taken from the data folder.
    dropout: float = 0.0  # Dropout on attention and on both branches of a block.
    qk_norm: bool = True  # RMSNorm on each head's queries and keys (on: the shape of Qwen3, off: of Llama).
    tie_embeddings: bool = True  # Use the embedding matrix as the output matrix too.
    rope_theta: float = 10_000.0  # Base of the rotary positions' wavelengths.
    n_kv_head: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None  # Heads of keys and values, shared; by default --n-head.
    mlp_size: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None  # Width of the SwiGLU layer; by default 8/3 of --n-embed.

    @property
    def head_size(self) -> int:
        return self.n_embed // self.n_head

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values; each serves as many heads of queries."""
        return self.n_kv_head or self.n_head

    @property
    def mlp_width(self) -> int:
        """Of the SwiGLU layer. 8/3 of n_embed gives its three matrices the size of two of width 4x; a multiple of 64 is faster."""
        return self.mlp_size or 64 * math.ceil(self.n_embed * 8 / 3 / 64)

    @property
    def parameters(self) -> int:
        """Of the whole model, before anything is built."""
        attention = 2 * self.n_embed * (self.n_embed + self.kv_heads * self.head_size) + 2 * self.head_size * self.qk_norm
        block = attention + 3 * self.n_embed * self.mlp_width + 2 * self.n_embed
        return (2 - self.tie_embeddings) * self.padded_vocab_size * self.n_embed + self.n_layer * block + self.n_embed

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding matrix: a multiple of 64, which is faster on a GPU. Rows past vocab_size are never sampled."""
        return 64 * math.ceil(self.vocab_size / 64)

    def check(self) -> None:
        require_positive(self, "n_layer", "n_head", "n_embed", "block_size", "rope_theta")
        require_at_most(self, n_layer=MAX_LAYERS, n_embed=MAX_WIDTH)
        require(self.n_embed % (2 * self.n_head) == 0, f"--n-embed {self.n_embed}: not a multiple of twice --n-head {self.n_head}")
        require(
            self.n_kv_head is None or (self.n_kv_head > 0 and self.n_head % self.n_kv_head == 0),
            f"--n-kv-head {self.n_kv_head}: does not divide --n-head {self.n_head}",
        )
        require(self.mlp_size is None or 0 < self.mlp_size <= MAX_MLP_SIZE, f"--mlp-size {self.mlp_size}: from 1 to {MAX_MLP_SIZE:,}")
        require(2 <= self.block_size <= MAX_BLOCK_SIZE, f"--block-size {self.block_size}: from 2 to {MAX_BLOCK_SIZE:,}")
        require(0 <= self.dropout < 1, f"--dropout {self.dropout}: from 0 up to, not including, 1")


@dataclass(frozen=True)
class SourceConfig:
    """What preprocessing documents and preprocessing pairs have in common."""

    data_dir: str  # Folder to write: the tokenizer, the shards, meta.json.
    dataset: str  # Data set on the Hugging Face hub, streamed.
    subset: str = ""  # Its configuration; empty if it has only one.
    split: str = "train"  # Its split.
    input: tuple[str, ...] = ()  # Local files, folders or globs instead of the hub.
    encoding: str = "utf-8"  # Encoding of the text files of --input, such as utf-16 or cp1252.
    skip_bad_rows: bool = False  # Skip and count the rows of text files that cannot be read; without it, the first one ends the run.
    val_share: float = 0.01  # Share held out for validation, chosen by a hash.
    vocab_size: int = 8888  # Number of token ids, with the special tokens and the 256 bytes; that of --tokenizer, if one is named.
    num_chunks: int = 1000  # Stop after this many chunks of 10,000 documents or pairs.
    workers: int = field(default_factory=usable_processors)  # Processes that reverse, encode and write.
    engine: Literal["local", "ray"] = "local"  # Where chunks are encoded: in processes on this machine, or on a Ray cluster.
    ray_address: str = ""  # Address of the running cluster; empty: start Ray on this machine.
    order: Order = "backward"  # Word order of the shards; forward is for a twin model to compare with.
    seed: int = 0  # Seed of the shuffle within each chunk.
    retries: int = 6  # Retries after a lost connection to the hub, with pauses of 1, 2, 4, ... seconds.
    like: str = ""  # Data folder whose input, settings and tokenizer to use; flags change them, such as --order for its twin.

    def check(self) -> None:
        require(bool(self.data_dir), "name the folder to write with --data-dir")
        require_positive(self, "num_chunks", "workers")
        require_at_most(self, workers=MAX_WORKERS)
        require(0 < self.val_share < 1, f"--val-share {self.val_share}: above 0 and below 1")
        require(
            MIN_VOCAB_SIZE <= self.vocab_size <= MAX_VOCAB_SIZE,
            f"--vocab-size {self.vocab_size}: from {MIN_VOCAB_SIZE} (bytes, special tokens, one more) to {MAX_VOCAB_SIZE} (16 bits)",
        )
        require_not_negative(self, "retries", "seed")
        _require_encoding(self.encoding)
        require(self.engine == "ray" or not self.ray_address, "--ray-address: only with --engine ray")


@dataclass(frozen=True)
class PreprocessConfig(SourceConfig):
    """Text in, token shards out."""

    data_dir: str = "data/xcoax"  # Folder to write: the tokenizer, the shards, meta.json.
    dataset: str = "HuggingFaceFW/fineweb"  # Data set on the Hugging Face hub, streamed.
    subset: str = "sample-100BT"  # Its configuration; empty if it has only one.
    field: str = "text"  # Field that holds the text, on the hub and in local files.
    input: tuple[str, ...] = ()  # Local files, folders or globs instead of the hub: .parquet .jsonl .csv .tsv (also .gz .zst) .json .txt
    clean: Literal["no", "wikitext"] = "no"  # wikitext: rows are lines of WikiText; they are joined to articles, and its markup goes.
    tokenizer: str = ""  # Use this tokenizer.model, or that of a data folder or of a model, instead of training one.
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
    dataset: str = "hakurei/open-instruct-v1"  # Data set on the Hugging Face hub, streamed.
    input: tuple[str, ...] = ()  # Local files, folders or globs instead of the hub: .parquet .jsonl .csv .tsv (also .gz .zst) .json
    instruction_field: str = ""  # Field that holds the instruction, if it has none of the usual names.
    response_field: str = ""  # Field that holds the response, if it has none of the usual names.
    input_field: str = ""  # Field whose text follows the instruction, if it has none of the usual names.
    tokenizer: str = "data/xcoax"  # Tokenizer of the pretrained model: its data folder, a tokenizer.model or the model itself.
    val_share: float = 0.02  # Share of the pairs held out for validation, chosen by a hash of the response.
    block_size: int = 1024  # Context length of the pretrained model: longer responses are cut, longer instructions are skipped.

    def check(self) -> None:
        super().check()
        require(self.block_size >= 32, f"--block-size {self.block_size}: 32 or more")


@dataclass(frozen=True)
class LoopConfig:
    """What pretraining and tuning have in common: the loop, the optimizer, the device."""

    out_dir: str  # Folder for checkpoints, metrics.jsonl and loss.png.
    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    batch_size: int = 64  # Sequences in a forward pass: halved until they fit on a GPU, fewer on a CPU.
    grad_accum: int = 4  # A step has --batch-size times as many sequences.
    max_steps: int = 20_000  # Optimizer steps.
    hours: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None  # Train for this long instead; the steps are planned.
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: Muon on the hidden matrices, AdamW on the rest.
    lr: float = 3e-4  # Peak learning rate.
    adamw_lr: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None  # With muon: that of the rest, by default the same.
    min_lr_share: float = 0.1  # Learning rate at the end, as a share of the peak.
    warmup_steps: int = 500  # Steps over which the learning rate rises from zero.
    schedule: Literal["cosine", "wsd"] = "cosine"  # After the warmup: a cosine, or constant and then a linear cooldown (wsd).
    cooldown_share: float = 0.4  # Share of the steps in the cooldown of wsd.
    momentum: float = 0.95  # Muon's.
    beta1: float = 0.9  # AdamW's first decay.
    beta2: float = 0.95  # AdamW's second decay.
    weight_decay: float = 0.1  # On matrices only.
    grad_clip: float = 1.0  # Largest gradient norm; 0 turns clipping off.
    eval_every: int = 500  # Steps between evaluations; each saves the last checkpoint and, on a new lowest loss, the best.
    keep_every: int = 0  # Steps between numbered checkpoints, which all stay; 0: none.
    log_every: int = 10  # Steps between log lines.
    device: Device = "auto"  # Device; auto takes the first available of cuda, mps, cpu.
    dtype: Dtype = "auto"  # dtype of matrix products; auto is bfloat16 where the device is fast at it, else float32.
    compile: bool = True  # Use torch.compile where it works.
    checkpoint_activations: bool = False  # Recompute each block in the backward pass to save memory.
    shard: bool = False  # Divide weights, gradients and optimizer state among the processes of torchrun.
    seed: int = 0  # Seed of the weights and of the order of the batches.
    tensorboard: bool = False  # Write TensorBoard files too.
    verify: bool = False  # Check the hash of every shard before training.
    new_data: bool = False  # Resume although the data differs from that of the checkpoint.
    plot: bool = False  # Draw loss.png from metrics.jsonl and stop.
    like: str = ""  # Folder of an earlier run whose settings to use; flags change them. Its own folder as --out-dir resumes it.

    def check(self) -> None:
        self.model.check()
        require(bool(self.out_dir), "name the folder to write with --out-dir")
        require_positive(self, "batch_size", "grad_accum", "max_steps", "lr", "eval_every", "log_every")
        require(
            self.sequences_per_step * self.model.block_size <= MAX_STEP_TOKENS,
            f"--batch-size {self.batch_size} × --grad-accum {self.grad_accum}: with a context of {self.model.block_size} tokens at most "
            f"{MAX_STEP_TOKENS // self.model.block_size:,} sequences in a step",
        )
        require(self.hours is None or 0 < self.hours <= MAX_HOURS, f"--hours {self.hours}: above 0, up to {MAX_HOURS:,}")
        require(self.adamw_lr is None or 0 < self.adamw_lr < math.inf, f"--adamw-lr {self.adamw_lr}: above 0")
        flag, rate = max(("--lr", self.lr), ("--adamw-lr", self.adamw_lr or 0.0), key=lambda named: named[1])
        require(
            rate * self.weight_decay <= 1,
            f"{flag} {rate:g} with --weight-decay {self.weight_decay:g}: their product is above 1, so each step would turn the sign of "
            f"the weights. Try a lower {flag}; the usual ones are below 0.1",
        )
        require(0 <= self.min_lr_share <= 1, f"--min-lr-share {self.min_lr_share}: from 0 to 1")
        require_not_negative(self, "warmup_steps", "weight_decay", "grad_clip", "keep_every")
        require(0 <= self.cooldown_share <= 1, f"--cooldown-share {self.cooldown_share}: from 0 to 1")
        for name, value in (("momentum", self.momentum), ("beta1", self.beta1), ("beta2", self.beta2)):
            require(0 <= value < 1, f"--{name} {value}: from 0 up to, not including, 1")
        require(0 <= self.seed < 1 << 63, f"--seed {self.seed}: from 0 to {(1 << 63) - 1}")

    @property
    def sequences_per_step(self) -> int:
        return self.batch_size * self.grad_accum


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """Token shards in, checkpoints out."""

    data_dir: str = "data/xcoax"  # Folder that preprocess_xcoax.py finished.
    out_dir: str = "out/xcoax"  # Folder for checkpoints, metrics.jsonl and loss.png.
    order: Annotated[Order | None, tyro.conf.arg(metavar="{backward,forward}")] = None  # Refuse data of the other word order.
    eval_tokens: int = 1 << 20  # Validation tokens in an evaluation, always the same.
    init_from: str = ""  # Start from this model, with its shape and tokenizer: a checkpoint, a Hugging Face folder or hf://owner/name.
    sample_tokens: int = 64  # Tokens of sample text shown at an evaluation; 0 turns it off.
    sample_prompt: str = "The end."  # Prompt of the sample text, an ending; a forward model has by default "Once upon a time".
    hellaswag_every: int = 0  # Steps between measurements of HellaSwag, at evaluations; 0: none.
    hellaswag: str = "Rowan/hellaswag"  # HellaSwag: a data set on the hub, or a file of its rows.
    hellaswag_tasks: int = 0  # Tasks, evenly spaced; 0: all.
    dry_run: bool = False  # Print the shape, the memory and the time that the run would take on one GPU, and stop.

    def check(self) -> None:
        super().check()
        require(not (self.dry_run and self.plot), "--dry-run and --plot: use only one of them")
        require_positive(self, "eval_tokens")
        require_not_negative(self, "sample_tokens", "hellaswag_every", "hellaswag_tasks")
        require(
            self.hellaswag_every % self.eval_every == 0,
            f"--hellaswag-every {self.hellaswag_every}: a multiple of --eval-every {self.eval_every}",
        )


@dataclass(frozen=True)
class FinetuneConfig(LoopConfig):
    """A pretrained checkpoint and shards of instruction pairs in, checkpoints out."""

    model_path: str = "out/xcoax/best_checkpoint.pt"  # The pretrained checkpoint; it decides architecture, tokenizer and word order.
    data_dir: str = "data/instruct"  # Folder that preprocess_instruct.py finished.
    out_dir: str = "out/instruct"  # Folder for checkpoints, metrics.jsonl and loss.png.
    model: tyro.conf.Suppress[ModelConfig] = field(default_factory=ModelConfig)
    epochs: float = 3.0  # Passes over the pairs.
    max_steps: tyro.conf.Suppress[int] = 1  # Computed from the epochs.
    loss_on: Literal["instruction", "all"] = "instruction"  # Tokens in the loss: the instruction and its end, or the response too.
    batch_size: int = 32  # Sequences of packed pairs in a forward pass: halved until they fit on a GPU, fewer on a CPU.
    grad_accum: int = 1  # A step has --batch-size times as many sequences.
    lr: float = 1e-4  # Peak learning rate.
    warmup_steps: int = 100  # Steps over which the learning rate rises from zero; at most a tenth of all steps.
    eval_every: int = 200  # Steps between evaluations; each saves the last checkpoint and, on a new lowest loss, the best.
    contrast: float = 0.0  # Weight of the loss on picking a response's instruction among others; 0: off. Steps take at least twice as long.
    eval_pairs: int = 1000  # Held-out pairs in an evaluation, always the same.
    dropout: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None  # Dropout while tuning; by default that of pretraining.
    seed: int = 0  # Seed of the order of the batches.

    def check(self) -> None:
        super().check()
        require_positive(self, "epochs", "eval_pairs")
        require(0 <= self.contrast <= 100, f"--contrast {self.contrast}: from 0 to 100")
        require(not (self.shard and self.contrast), "--contrast and --shard: use only one of them")
        require_at_most(self, epochs=MAX_EPOCHS)
        require(self.dropout is None or 0 <= self.dropout < 1, f"--dropout {self.dropout}: from 0 up to, not including, 1")


@dataclass(frozen=True)
class InferenceConfig:
    """Which model is used after training, and how it computes."""

    model_path: str  # Checkpoint to use.
    device: Device = "auto"  # Device; auto takes the first available of cuda, mps, cpu.
    dtype: Dtype = "auto"  # dtype of the weights; auto is bfloat16 where the device is fast at it, else float32.
    quantize: Literal["no", "int8"] = "no"  # int8: 8-bit weights, on a CPU faster for one text at a time.


@dataclass(frozen=True)
class SamplerConfig(InferenceConfig):
    """What both samplers have in common: the model and the sampling parameters."""

    num_samples: int = 1  # Texts per prompt.
    max_new_tokens: int = 500  # Maximum number of tokens per text.
    temperature: float = 0.8  # Above 1 bolder, below 1 more careful, 0 always the most likely token.
    top_k: int = 200  # Sample from this many of the most likely tokens; 0 is off.
    top_p: float = 1.0  # Sample from the most likely tokens that together have this probability; 1 is off.
    min_p: float = 0.0  # Sample from tokens with at least this share of the highest probability; 0 is off.
    seed: int | None = None  # The same seed gives the same text; without one every text differs.
    raw: bool = False  # Show the text in the word order of the model.
    pace: float = 0.0  # Words a second that appear on a terminal; 0: as fast as they are generated.
    picture: str = ""  # SVG file to write: the text for --prompt or --response, its words colored by their surprise.
    format: Literal["text", "jsonl"] = "text"  # jsonl: for one text or a pipe, a JSON object on a line for each generated text.
    input: str = ""  # File of rows or lines to generate for, instead: .jsonl .csv .tsv (also .gz .zst) .json .parquet .txt
    output: str = ""  # Output file for --input: .jsonl[.gz|.zst] or .parquet
    encoding: str = "utf-8"  # Encoding of --input, if it is a text file.
    batch_size: int = 32  # Rows of a file that are processed at once.

    def check(self) -> None:
        require(1 <= self.num_samples <= 1000, f"--num-samples {self.num_samples}: from 1 to 1000")
        require(0 <= self.max_new_tokens <= MAX_BLOCK_SIZE, f"--max-new-tokens {self.max_new_tokens}: from 0 to {MAX_BLOCK_SIZE:,}")
        require(0 <= self.temperature <= 10, f"--temperature {self.temperature}: from 0 to 10")
        require(0 <= self.top_k <= MAX_VOCAB_SIZE, f"--top-k {self.top_k}: from 0 (off) to {MAX_VOCAB_SIZE:,}")
        require(0 < self.top_p <= 1, f"--top-p {self.top_p}: above 0, up to 1 (off)")
        require(0 <= self.min_p <= 1, f"--min-p {self.min_p}: from 0 (off) to 1")
        require(self.seed is None or 0 <= self.seed < 1 << 63, f"--seed {self.seed}: from 0 to {(1 << 63) - 1}")
        require(0 <= self.pace <= 1000, f"--pace {self.pace}: from 0 (off) to 1000 words a second")
        require(not self.picture or self.picture.endswith(".svg"), f"--picture {self.picture}: a name that ends with .svg")
        require_positive(self, "batch_size")
        _require_encoding(self.encoding)
        require(bool(self.output) or not self.input, "name the file to write with --output")
        require(self.format == "text" or not self.input, "--format jsonl: not with --input; the ending of --output is the format")
        unused = next((f"--{name}" for name in ("raw", "pace", "picture") if self.input and getattr(self, name)), "")
        require(not unused, f"{unused}: not with --input")
        require(bool(self.input) or not self.output, "--output needs --input; for one text or a pipe, use --format jsonl > FILE")


@dataclass(frozen=True)
class SampleConfig(SamplerConfig):
    """BackGPT: an ending in, what led there out."""

    model_path: str = "out/xcoax/best_checkpoint.pt"  # Checkpoint to use.
    prompt: str = ""  # One ending to write towards; without it, an interactive prompt or the lines of a pipe.

    def check(self) -> None:
        require(not (self.prompt and self.input), "--prompt and --input: use only one of them")
        require(bool(self.prompt) or not self.picture, f"--picture {self.picture}: needs the text of --prompt; at the prompt type /picture")
        super().check()


@dataclass(frozen=True)
class SampleInstructConfig(SamplerConfig):
    """BackChat: a response in, the instruction that could have led to it out."""

    model_path: str = "out/instruct/best_checkpoint.pt"  # Tuned checkpoint to use.
    response: str = ""  # One response to find the instruction for; without it, an interactive prompt or the lines of a pipe.
    with_scores: bool = False  # With --input: also score each pair, as score_xcoax.py --pairs does with the output.
    score: str = ""  # Moved: score_xcoax.py --pairs does this now.

    def check(self) -> None:
        flags = ["--pairs", self.score, "--output", self.output or "scored.jsonl", "--model-path", self.model_path]
        require(not self.score, f"--score is a script of its own now: python score_xcoax.py {shlex.join(flags)}")
        require(not (self.response and self.input), "--response and --input: use only one of them")
        require(bool(self.response) or not self.picture, f"--picture {self.picture}: needs --response; at the prompt type /picture")
        require(bool(self.input) or not self.with_scores, "--with-scores: only with --input")
        super().check()


@dataclass(frozen=True)
class ScoreConfig(InferenceConfig):
    """BackChat: pairs or answers in, how well each explains its instruction out."""

    model_path: str = "out/instruct/best_checkpoint.pt"  # Tuned checkpoint to use.
    pairs: str = ""  # File of pairs to score, each by log P(instruction | response): .jsonl .csv .tsv (also .gz .zst) .json .parquet
    rerank: str = ""  # File of rows with an instruction and `answers` to it, to sort them best first: .jsonl[.gz|.zst] .json .parquet
    encoding: str = "utf-8"  # Encoding of that file, if it is a text file.
    output: str = ""  # Output file: .jsonl[.gz|.zst] or .parquet
    batch_size: int = 32  # Sequences of the context length scored at once.

    def check(self) -> None:
        require_positive(self, "batch_size")
        _require_encoding(self.encoding)
        require(not (self.pairs and self.rerank), "--pairs and --rerank: use only one of them")
        require(bool(self.pairs or self.rerank), "name a file of pairs with --pairs, or a file of answers with --rerank")
        require(bool(self.output), "name the file to write with --output")
        for flag, path, content in (("pairs", self.pairs, "pairs"), ("rerank", self.rerank, "lists of answers")):
            require(not path.lower().endswith(".txt"), f"--{flag} {path}: a .txt file has no {content}. Use .jsonl, .json or .parquet")
        is_table = self.rerank.lower().endswith(("sv", "sv.gz", "sv.zst"))
        require(not is_table, f"--rerank {self.rerank}: a cell of a table holds no list of answers. Use .jsonl, .json or .parquet")


@dataclass(frozen=True)
class ExportConfig:
    """A checkpoint in, files for other programs out."""

    model_path: str = "out/instruct/best_checkpoint.pt"  # Checkpoint to export, tuned or only pretrained.
    out_dir: str = ""  # Folder to write; empty: hf or gguf beside the checkpoint.
    format: Literal["hf", "gguf"] = "hf"  # hf: a Hugging Face folder, for transformers and vLLM; gguf: one file, for llama.cpp.
    # dtype of the weights; auto is bfloat16, for gguf float16; q8_0 (8 bits) is for gguf only.
    dtype: Literal["auto", "float32", "bfloat16", "float16", "q8_0"] = "auto"
    license: str = ""  # License of the weights for the model card, such as mit or cc-by-sa-4.0.
    verify: bool = True  # Compare what transformers computes from the folder with what we compute, if it is installed.
    force: bool = False  # Replace an earlier export.

    def check(self) -> None:
        require(self.dtype != "q8_0" or self.format == "gguf", "--dtype q8_0: only with --format gguf")

    @property
    def stored_dtype(self) -> str:
        chosen = "bfloat16" if self.format == "hf" else "float16"
        return chosen if self.dtype == "auto" else self.dtype


@dataclass(frozen=True)
class BenchmarkConfig:
    """A shape in, the speed of every stage out, each beside its bound."""

    model: Annotated[ModelConfig, tyro.conf.arg(name="")] = field(default_factory=ModelConfig)
    train: tyro.conf.Suppress[TrainConfig] = field(default_factory=TrainConfig)  # the preset's recipe
    parts: tuple[Part, ...] = ("preprocess", "train", "generate", "score")  # Stages to measure.
    repeats: int = 3  # Measurements of each figure; the tables show their median and range.
    workers: int = field(default_factory=usable_processors)  # Processes of preprocessing.
    text_mb: float = 30.0  # MB of made-up text to preprocess, for each worker; a longer run takes it three times.
    batch_size: int = 0  # Sequences in a training step; 0: those of the preset, but on a CPU one micro-batch of them.
    optimizer: Literal["adamw", "muon"] = "adamw"  # Optimizer of the training step; the yardstick always uses AdamW.
    compile: bool = True  # Measure training with torch.compile too, where it works.
    prompt_tokens: int = 64  # Tokens in a prompt.
    tokens: int = 16  # Tokens generated in each text.
    rows: tuple[int, ...] = (1, 8, 32)  # Numbers of texts generated at once.
    candidates: int = 100  # Candidates scored after one prompt.
    candidate_tokens: int = 32  # Tokens in the longest candidate; the shortest has a quarter of them.
    out_dir: str = "out/benchmark"  # Folder for benchmark.png, and for files that are deleted at the end.
    json: str = ""  # File for all figures of all repeats.
    device: Device = "auto"  # Device; auto takes the first available of cuda, mps, cpu.
    dtype: Dtype = "auto"  # dtype of matrix products; auto is bfloat16 where the device is fast at it, else float32.

    def check(self) -> None:
        self.model.check()
        require_positive(self, "repeats", "workers", "text_mb", "prompt_tokens", "candidates", "candidate_tokens")
        require_not_negative(self, "batch_size")
        require_at_most(self, repeats=1000, workers=MAX_WORKERS, candidates=1 << 20, batch_size=MAX_STEP_TOKENS // self.model.block_size)
        require(max(self.rows, default=0) <= 1 << 16, f"--rows {' '.join(map(str, self.rows))}: at most {1 << 16:,}")
        require(bool(self.parts), "--parts: name one or more of preprocess, train, generate, score")
        require(self.tokens > 1, f"--tokens {self.tokens}: 2 or more")
        require(min(self.rows, default=0) > 0, f"--rows {' '.join(map(str, self.rows))}: one or more numbers above 0")
        for name in ("tokens", "candidate_tokens"):
            require(
                self.prompt_tokens + getattr(self, name) <= self.model.block_size,
                f"--prompt-tokens {self.prompt_tokens} and --{name.replace('_', '-')} {getattr(self, name)}: "
                f"more than --block-size {self.model.block_size} together",
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """A checkpoint in, its report card out."""

    model_path: tuple[str, ...] = ("out/instruct/best_checkpoint.pt",)  # Checkpoint to evaluate, tuned or not; or one of each seed.
    against: tuple[str, ...] = ()  # As many checkpoints to compare with on the same texts, pair by pair, such as the forward twins.
    over_training: bool = False  # Measure the numbered checkpoints of the run too (--keep-every), and draw the figures over its tokens.
    out_dir: str = ""  # Folder for the report; empty: beside the first checkpoint, with --against in its folder against_NAME.
    data_dir: tuple[str, ...] = ()  # Data folders whose held-out documents are used, each by itself; empty: that of pretraining.
    documents: int = 2000  # Held-out documents, evenly spread; 0: all.
    text: tuple[str, ...] = ()  # More texts: files, folders or globs of .parquet .jsonl .csv .tsv (also .gz .zst) .json .txt
    stride: int = 0  # Tokens by which the window moves over a text longer than the context; 0: half the context.
    pairs_dir: str = ""  # Data folder whose held-out pairs are used; empty: that of tuning.
    pairs: str = ""  # File of held-out pairs to use instead: .jsonl .csv .tsv (also .gz .zst) .json .parquet
    encoding: str = "utf-8"  # Encoding of the files of --text and --pairs, if they are text files.
    max_pairs: int = 1000  # Held-out pairs, evenly spread, to score and to generate instructions for.
    ranked_pairs: int = 200  # How many of them are used for ranking, of instructions and of answers.
    candidates: tuple[int, ...] = (10, 100, 1000)  # Other instructions, or answers, among which the true one is ranked.
    mismatched_share: float = 0.5  # Share of the pairs that get the response of another pair, for filtering.
    hellaswag: str = "Rowan/hellaswag"  # HellaSwag: a data set on the hub, or a file of its rows; empty: left out.
    hellaswag_tasks: int = 0  # Tasks, evenly spread; 0: all.
    max_new_tokens: int = 100  # Maximum number of tokens in a generated instruction.
    batch_size: int = 16  # Sequences of the context length scored, or texts generated, at once.
    seed: int = 0  # Seed of everything random: other instructions, mismatched pairs, resamples.
    device: Device = "auto"  # Device; auto takes the first available of cuda, mps, cpu.
    dtype: Dtype = "auto"  # dtype of the weights; auto is bfloat16 where the device is fast at it, else float32.

    def check(self) -> None:
        require_positive(self, "max_pairs", "ranked_pairs", "max_new_tokens", "batch_size")
        require_not_negative(self, "documents", "stride", "hellaswag_tasks", "seed")
        require(all(self.model_path) and bool(self.model_path), "--model-path: name one checkpoint or more")
        models, others = len(self.model_path), len(tuple(filter(None, self.against)))
        require(
            others in (0, models),
            f"--model-path names {models} and --against {others}: as many of each, compared pair by pair, or no name after --against",
        )
        require(min(self.candidates, default=0) > 0, f"--candidates {' '.join(map(str, self.candidates))}: one or more numbers above 0")
        _require_encoding(self.encoding)
        require(0 < self.mismatched_share < 1, f"--mismatched-share {self.mismatched_share}: above 0 and below 1")
        require(not (self.pairs and self.pairs_dir), "--pairs and --pairs-dir: use only one of them")
