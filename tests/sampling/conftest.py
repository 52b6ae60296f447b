"""Small random models, and a file of responses with its instructions, shared by the tests of this room."""

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from config import ModelConfig
from model import GPT
from tests.conftest import call_script, fails_with, make_pairs

JOB_FLAGS = ("--max-new-tokens", 6, "--batch-size", 4, "--seed", 1)


def random_model(**changes: int | bool | None) -> GPT:
    """A model with random weights; weights that start at zero would make every id equally likely."""
    shape: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embed": 16, "block_size": 24, "vocab_size": 400, **changes}
    torch.manual_seed(0)
    model = GPT(ModelConfig(**shape)).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def job_command(checkpoints: dict[str, Path], source: Path, output: Path, *flags: object) -> list[str]:
    """The command that generates instructions for a file of responses."""
    everything = ["--model-path", checkpoints["tuning"], "--input", source, "--output", output, *JOB_FLAGS, *flags]
    return ["sample_xcoax_instruct.py", *map(str, everything)]


def run_job(checkpoints: dict[str, Path], source: Path, output: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    """Generate instructions for a file of responses in this process."""
    return call_script(*job_command(checkpoints, source, output, *flags))


def score_command(checkpoints: dict[str, Path], job: str, source: Path, output: Path, *flags: object) -> list[str]:
    """The command that scores a file of --pairs, or does --rerank with a file of answers."""
    return ["score_xcoax.py", *map(str, ["--model-path", checkpoints["tuning"], job, source, "--output", output, *flags])]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of an output file."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = pa.input_stream(pa.py_buffer(data), compression="zstd").read()
    return [json.loads(line) for line in data.decode().splitlines()]


@pytest.fixture(scope="session")
def responses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows, of which four cannot be used."""
    rows: list[str] = [json.dumps({"response": pair["output"], "id": index}) for index, pair in enumerate(make_pairs(40))]
    rows[2] = "{bad JSON"
    rows[7] = json.dumps({"response": " ", "id": 7})
    rows[8] = json.dumps({"other": "x", "id": 8})
    rows[39] = json.dumps([1])
    path = tmp_path_factory.mktemp("responses") / "responses.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def instructions(checkpoints: dict[str, Path], responses: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one undisturbed run over the responses."""
    output = tmp_path_factory.mktemp("instructions") / "instructions.jsonl"
    fails_with(run_job(checkpoints, responses, output), 1, "4 of 40 rows could not be used")
    return output
