"""Checkpoints of several shapes, and the export script, shared by the tests of this room."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from config import ModelConfig, Order, Stage
from formats.checkpoint import save_checkpoint
from model import GPT
from tests.conftest import call_script
from tokens.tokenizer import Tokenizer

SHAPE: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embed": 32, "block_size": 64, "vocab_size": 400}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"qk_norm": False},
    "untied": {"tie_embeddings": False, "mlp_size": 72, "rope_theta": 5000.0},
    "shared heads": {"n_kv_head": 1, "n_head": 4},
    "llama, shared heads": {"n_kv_head": 2, "n_head": 4, "qk_norm": False},
}


def save_random(
    path: Path,
    tokenizer: Tokenizer,
    stage: Stage = "tuning",
    order: Order = "backward",
    train_config: Any = None,
    must_match: Any = None,
    scale: float = 0.2,
    **changes: Any,
) -> Path:
    """A checkpoint of a small model with random weights."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(**SHAPE | changes))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean="norm" in name, std=scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "train_config": train_config or {},
        "must_match": must_match or {"of": "a test"},
        "stage": stage,
        "order": order,
    }
    facts |= {"tokenizer": tokenizer, "step": 7, "tokens": 1234, "val_loss": 6.5}
    save_checkpoint(path, weights=model.state_dict(), model_config=model.config, **facts)
    return path


def export(checkpoint: Path, folder: Path | str, *flags: object) -> subprocess.CompletedProcess[str]:
    """Run the script in this process."""
    return call_script("export_xcoax.py", "--model-path", checkpoint, "--out-dir", folder, *flags)


@pytest.fixture(scope="session")
def tokenizer(dataset_folder: Path) -> Tokenizer:
    return Tokenizer.load(dataset_folder)


@pytest.fixture(scope="session")
def checkpoint(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned one."""
    return save_random(tmp_path_factory.mktemp("exported") / "best_checkpoint.pt", tokenizer)


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Hugging Face folder in float32. Tests only read it."""
    folder = tmp_path_factory.mktemp("folders") / "hf"
    result = export(checkpoint, folder, "--dtype", "float32", "--no-verify")
    assert result.returncode == 0, result.stderr
    return folder
