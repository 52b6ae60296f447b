"""Write, find and load checkpoints: one file that holds all that sampling, tuning, evaluation or export needs.

A checkpoint is plain tensors, numbers, strings, bytes, lists and dicts, so that reading one can never run code.
"""

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from config import ModelConfig, command_for
from disk import replacing
from errors import UserError
from model import GPT
from text import Order
from tokenizer import Tokenizer

FORMAT = 1
BEST = "best_checkpoint.pt"
LAST = "last_checkpoint.pt"
RESUMING = ("optimizer", "scaler", "random", "best_val_loss")  # what only the last checkpoint holds


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
    resuming: dict[str, Any] | None  # in the last checkpoint: what resuming needs beside the weights

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
    resuming: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint; the one before stays whole until the new one is."""
    content = {
        "format": FORMAT,
        "model": model.state_dict(),
        "model_config": asdict(model.config),
        "train_config": train_config,
        "tokenizer": tokenizer.model,
        "order": order,
        "step": step,
        "tokens": tokens,
        "val_loss": val_loss,
        **(resuming or {}),
    }
    try:
        with replacing(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch wraps what went wrong while writing
        if not isinstance(cause, OSError):
            raise
        kept = f"; the one of before is whole: {path}" if path.is_file() else ""
        raise UserError(
            f"cannot save the checkpoint of step {step}: {cause.strerror}{kept}. Make room and run the same command again"
        ) from error


def load_checkpoint(path: Path, mapped: bool = True) -> Checkpoint:
    """Read a checkpoint without running anything that is in it; mapped, its tensors are read from the file when they are used."""
    make = command_for("train_xcoax.py", path.parent)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}. Run: {make}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        if content["format"] != FORMAT:
            raise UserError(f"{path} has checkpoint format {content['format']}, not {FORMAT}. Make it again: {make}")
        return Checkpoint(
            path=path,
            weights=content["model"],
            model_config=ModelConfig(**content["model_config"]),
            train_config=content["train_config"],
            tokenizer=Tokenizer(content["tokenizer"], f"the tokenizer in {path}"),
            order=content["order"],
            step=content["step"],
            tokens=content["tokens"],
            val_loss=content["val_loss"],
            resuming={name: content[name] for name in RESUMING} if RESUMING[0] in content else None,
        )
    # Whatever a foreign or damaged file can lead to: the unpickler's own refusals, a broken archive, other contents.
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path} is no checkpoint of this project, or is damaged; nothing in it was run. Make it again: {make}") from error
