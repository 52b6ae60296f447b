"""Every script that writes, on a small place of its own: the command, its lock, and what proves that its result is sound."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from formats.checkpoint import load_checkpoint
from formats.named_model import load_named_model
from formats.shards import open_dataset
from tests.conftest import call_script, make_documents, make_pairs, write_jsonl, write_pairs


class Writer(NamedTuple):
    """A script that writes."""

    command: list[object]
    lock: Path
    check: Callable[[], object]  # raises where its result is not sound
    has_seed: bool = True

    def with_seed(self, seed: int) -> list[object]:
        """The command for runs whose results differ, as far as it has such a flag."""
        return [*self.command, "--seed", seed] if self.has_seed else self.command


class Sources(NamedTuple):
    """What the scripts read."""

    texts: Path
    pairs: Path
    few_pairs: Path
    documents: Path  # data folders
    encoded_pairs: Path
    pretrained: Path
    tuned: Path


def make_sources(dataset_folder: Path, checkpoints: dict[str, Path], folder: Path) -> Sources:
    """Texts and pairs, and data folders and checkpoints by the real scripts."""
    pairs = write_pairs(folder / "pairs.jsonl", make_pairs(150))
    flags = ["--input", pairs, "--data-dir", folder / "pairs", "--tokenizer", dataset_folder, "--workers", 1, "--block-size", 512]
    assert call_script("preprocess_instruct.py", *flags).returncode == 0
    texts, few = write_jsonl(folder / "texts.jsonl", make_documents(150)), write_pairs(folder / "few.jsonl", make_pairs(12))
    return Sources(texts, pairs, few, dataset_folder, folder / "pairs", checkpoints["pretraining"], checkpoints["tuning"])


def writers(sources: Sources, place: Path) -> dict[str, Writer]:
    """The scripts, each with its own part of the place."""
    cpu = ["--device", "cpu"]
    shape = ["--n-layer", 1, "--n-head", 2, "--n-embed", 16, "--block-size", 32, "--batch-size", 2, "--grad-accum", 1, "--no-compile"]
    source = ["--workers", 1, "--val-share", 0.1]
    texts, pairs, model = ["--input", sources.texts], ["--input", sources.pairs], ["--model-path", sources.tuned]
    base = ["--model-path", sources.pretrained]
    tuning = ["--epochs", 0.2, "--batch-size", 2, "--no-compile", *cpu]
    evaluated = ["--documents", 4, "--data-dir", sources.documents, "--hellaswag", "", *cpu]
    sampled = ["--input", sources.few_pairs, "--output", place / "sampled.jsonl", "--max-new-tokens", 3, *cpu]

    def dataset(name: str) -> Callable[[], object]:
        return lambda: open_dataset(place / name, None).verify()

    def checkpoint(name: str) -> Callable[[], object]:
        return lambda: load_checkpoint(place / name / "last_checkpoint.pt", mapped=False)

    def has_rows(name: str, count: int) -> Callable[[], object]:
        return lambda: require(rows_of(place / name) == count)

    def report() -> None:
        require(bool(json.loads((place / "card" / "report.json").read_text(encoding="utf-8"))["sections"]))

    def export() -> None:
        load_named_model(str(place / "hf")).make_model(torch.device("cpu"))

    def gguf() -> None:
        require([path.name for path in (place / "gguf").iterdir()] == ["model-float16.gguf"])

    def command(script: str, *flags: object) -> list[object]:
        return [script, *flags]

    return {
        "preprocess_xcoax": Writer(
            command("preprocess_xcoax.py", *texts, "--data-dir", place / "a", "--vocab-size", 400, *source),
            place / "a" / ".lock",
            dataset("a"),
        ),
        "preprocess_instruct": Writer(
            command("preprocess_instruct.py", *pairs, "--data-dir", place / "b", "--tokenizer", sources.documents, *source),
            place / "b" / ".lock",
            dataset("b"),
        ),
        "train_xcoax": Writer(
            command("train_xcoax.py", "--data-dir", sources.documents, "--out-dir", place / "c", "--max-steps", 6, *shape, *cpu),
            place / "c" / ".lock",
            checkpoint("c"),
        ),
        "finetune_xcoax": Writer(
            command("finetune_xcoax.py", *base, "--data-dir", sources.encoded_pairs, "--out-dir", place / "d", *tuning),
            place / "d" / ".lock",
            checkpoint("d"),
        ),
        "sample --output": Writer(
            command("sample_xcoax_instruct.py", *model, *sampled), place / "sampled.jsonl.unfinished", has_rows("sampled.jsonl", 12)
        ),
        "score --output": Writer(
            command("score_xcoax.py", *model, "--pairs", sources.pairs, "--output", place / "scored.jsonl", *cpu),
            place / "scored.jsonl.unfinished",
            has_rows("scored.jsonl", 150),
            has_seed=False,
        ),
        "evaluate": Writer(command("evaluate_xcoax.py", *base, "--out-dir", place / "card", *evaluated), place / "card", report),
        "export": Writer(
            command("export_xcoax.py", *model, "--out-dir", place / "hf", "--no-verify"), place / ".hf.part", export, has_seed=False
        ),
        "export gguf": Writer(
            command("export_xcoax.py", *model, "--out-dir", place / "gguf", "--format", "gguf"), place / "gguf", gguf, has_seed=False
        ),
    }


def rows_of(path: Path) -> int:
    """How many rows a file of JSON lines has."""
    return len([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


def require(condition: bool) -> None:
    """Fail where a result is not sound."""
    assert condition
