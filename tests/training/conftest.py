"""A finished pretraining run, a tuning run of its model, and made-up examples, shared by all tests of training."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_pairs, write_pairs
from tests.preprocessing.in_process import run_here
from tests.training.runs import PRETRAINING, TUNING, Run, pretrain, tune
from tokens.prompt_format import PromptFormat
from tokens.tokenizer import Tokenizer
from training.examples import Example


def make_examples(prompt_format: PromptFormat, lengths: list[tuple[int, int]]) -> list[Example]:
    """Examples with these numbers of tokens in the response and in the instruction."""
    generator = np.random.default_rng(0)
    examples = []
    for response, instruction in lengths:
        texts = [generator.integers(300, 400, size=count).astype(np.uint16) for count in (response, instruction)]  # ordinary pieces
        ids = prompt_format.example(*texts).astype(np.int64)
        examples.append(Example(ids, len(prompt_format.before_response) + response + len(prompt_format.before_instruction)))
    return examples


@pytest.fixture(scope="session")
def prompt_format(dataset_folder: Path) -> PromptFormat:
    return PromptFormat(Tokenizer.load(dataset_folder), "backward")


@pytest.fixture(scope="session")
def pretrained(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run of 40 steps. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    result = pretrain(dataset_folder, out, *PRETRAINING)
    assert result.returncode == 0, result.stderr
    return Run(out, result.stdout)


@pytest.fixture(scope="session")
def base(pretrained: Run) -> Path:
    """The checkpoint that tuning starts from."""
    return pretrained.folder / "best_checkpoint.pt"


@pytest.fixture(scope="session")
def pairs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of pairs, made with the tokenizer of the checkpoint. Tests only read it."""
    folder = tmp_path_factory.mktemp("pairs")
    source = write_pairs(folder / "pairs.jsonl", make_pairs(150))
    flags = ["--tokenizer", base, "--vocab-size", 400, "--block-size", 64, "--val-share", 0.2]
    result = run_here("preprocess_instruct.py", "--input", source, "--data-dir", folder / "data", *flags)
    assert result.returncode == 0, result.stderr
    return folder / "data"


@pytest.fixture(scope="session")
def short_pairs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with instructions of a few tokens, which fit an eighth of the small context."""
    folder = tmp_path_factory.mktemp("short")
    rows = [
        {"instruction": f"{row['output'].split()[0][:3]} {index % 40}", "output": row["output"]}
        for index, row in enumerate(make_pairs(150))
    ]
    flags = ["--tokenizer", base, "--vocab-size", 400, "--block-size", 64, "--val-share", 0.2]
    result = run_here("preprocess_instruct.py", "--input", write_pairs(folder / "pairs.jsonl", rows), "--data-dir", folder / "data", *flags)
    assert result.returncode == 0, result.stderr
    return folder / "data"


@pytest.fixture(scope="session")
def tuned(base: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run of two epochs. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "tuned"
    result = tune(base, pairs, out, *TUNING)
    assert result.returncode == 0, result.stderr
    return Run(out, result.stdout)
