"""Small models, held-out pairs, and ways to run the report card, shared by the tests of this room."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from config import ModelConfig
from evaluation.evaluated_model import EvaluatedModel
from evaluation.held_out import HeldOutPair, make_example
from evaluation.recovery import Recovery
from formats.checkpoint import load_checkpoint, save_checkpoint
from formats.pairs import Pair
from model import GPT
from sampling.scoring import Scorer
from tests.conftest import call_script
from tokens.prompt_format import PromptFormat
from tokens.tokenizer import Tokenizer

FEW = ["--max-new-tokens", "4", "--ranked-pairs", "20", "--candidates", "5", "10", "99", "--hellaswag", ""]


class Card(NamedTuple):
    """A finished report card."""

    folder: Path
    printed: str
    flags: list[object]


def rows_of_report(folder: Path) -> dict[str, Any]:
    """The rows of each section of report.json, by title."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {section["title"]: section["rows"] for section in report["sections"]}


def evaluate_pairs(checkpoint: Path, folder: Path, rows: Sequence[Any], *flags: object) -> subprocess.CompletedProcess[str]:
    """A small report card, in folder/card, of a file with these rows; a row that is a string is written as it is."""
    source = folder / "pairs.jsonl"
    source.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return call_script("evaluate_xcoax.py", "--model-path", checkpoint, "--pairs", source, *FEW, "--out-dir", folder / "card", *flags)


def make_recovery(model: EvaluatedModel, pairs: Sequence[Pair], seed: int = 0) -> Recovery:
    """The recovery of those pairs that fit into the model's context."""
    prompt_format = PromptFormat(model.checkpoint.tokenizer, model.checkpoint.order)
    examples = [(pair, make_example(pair, prompt_format, model.block_size)[0]) for pair in pairs]
    return Recovery(model, [HeldOutPair(pair, example) for pair, example in examples if example], seed)


@pytest.fixture(scope="session")
def tokenizer(dataset_folder: Path) -> Tokenizer:
    """The tokenizer of the small dataset."""
    return Tokenizer.load(dataset_folder)


@pytest.fixture(scope="session")
def bigram_model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> EvaluatedModel:
    """A tuned model whose blocks add nothing, as at initialization: it sees only the last token, so nothing of the response."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embed=32, block_size=128, vocab_size=400))
    torch.nn.init.normal_(model.embedding.weight, std=0.4)
    path = tmp_path_factory.mktemp("bigram") / "best_checkpoint.pt"
    save_checkpoint(
        path, weights=model.state_dict(), model_config=model.config, train_config={}, stage="tuning", must_match={}, tokenizer=tokenizer,
        order="backward", step=1, tokens=1, val_loss=6.0,
    )  # fmt: skip
    checkpoint = load_checkpoint(path)
    return EvaluatedModel("bigram model", checkpoint, Scorer(checkpoint.make_model(torch.device("cpu")), 4))
