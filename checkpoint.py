"""Write, find and load checkpoints: one file that holds all that sampling, tuning, evaluation or export needs.

A checkpoint is plain tensors, numbers, strings, bytes, lists and dicts, so that reading one can never run code.
"""

import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from config import TRAIN_PRESETS, ModelConfig, model_config_from
from errors import UserError
from model import GPT
from text import Order
from tokenizer import Tokenizer

FORMAT = 1
BEST = "best_checkpoint.pt"
LAST = "last_checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """What is in a checkpoint, its tensors mapped from the file."""

    path: Path
    weights: dict[str, torch.Tensor]
    model_config: ModelConfig
    train_config: dict[str, Any]
    tokenizer: Tokenizer
    order: Order
    step: int
    tokens: int  # seen in training
    val_loss: float  # nats per token
    optimizer: dict[str, Any] | None  # in the last checkpoint: what resuming needs
    random: dict[str, Any] | None

    def make_model(self, device: torch.device) -> GPT:
        """The model with its weights, on the device."""
        with torch.device("meta"):
            model = GPT(self.model_config)
        model.load_state_dict(self.weights, assign=True)
        return model.to(device)


def save_checkpoint(
    path: Path,
    *,
    model: GPT,
    train_config: dict[str, Any],
    tokenizer: Tokenizer,
    order: Order,
    step: int,
    tokens: int,
    val_loss: float,
    optimizer: dict[str, Any] | None = None,
    random: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint; the one before stays whole until the new one is."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "model": model.state_dict(),
        "model_config": asdict(model.config),
        "train_config": train_config,
        "tokenizer": tokenizer.model,
        "order": order,
        "step": step,
        "tokens": tokens,
        "val_loss": val_loss,
    }
    if optimizer is not None:
        content |= {"optimizer": optimizer, "random": random}
    temporary = path.with_name(f"{path.name}.part")
    try:
        torch.save(content, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError, without the reason
        temporary.unlink(missing_ok=True)
        kept = f"; the one of before is whole: {path}" if path.is_file() else ""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the disk is full or cannot be written"
        raise UserError(f"cannot save the checkpoint of step {step}: {reason}{kept}. Make room and run the same command again") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running anything that is in it."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}. Run: {_make(path)}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is no checkpoint of this project, or is damaged; nothing in it was run. Make it again: {_make(path)}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise UserError(f"{path} has checkpoint format {found}, this version reads {FORMAT}. Make it again: {_make(path)}")
    return Checkpoint(
        path=path,
        weights=content["model"],
        model_config=model_config_from(content["model_config"]),
        train_config=content["train_config"],
        tokenizer=Tokenizer(content["tokenizer"], f"the tokenizer in {path}"),
        order=content["order"],
        step=content["step"],
        tokens=content["tokens"],
        val_loss=content["val_loss"],
        optimizer=content.get("optimizer"),
        random=content.get("random"),
    )


def _make(path: Path) -> str:
    """The command that makes the checkpoints of this folder."""
    for name, preset in TRAIN_PRESETS.items():
        if Path(preset.out_dir) == path.parent:
            return "python train_xcoax.py" + (f" {name}" if name != "xcoax" else "")
    return f"python train_xcoax.py --out-dir {path.parent}"
