"""Write, find and load checkpoints: one file that holds all that sampling, tuning, evaluation or export needs.

A checkpoint is plain tensors, numbers, strings, bytes, lists and dicts, so that reading one can never run code.
"""

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from config import ModelConfig, Script, Stage
from disk import replacing
from errors import UserError
from model import GPT
from presets import command_for
from text import Order
from tokenizer import Tokenizer

FORMAT = 1
MAKERS: dict[Stage, Script] = {"pretraining": "train_xcoax.py", "tuning": "finetune_xcoax.py"}
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
    stage: Stage
    identity: dict[str, Any]  # what a run that goes on from here must share
    tokenizer: Tokenizer
    order: Order
    step: int
    tokens: int  # seen in training
    val_loss: float  # nats per token
    resuming: dict[str, Any] | None  # in the last checkpoint: what resuming needs beside the weights

    def make_model(self, device: torch.device) -> GPT:
        """The model with its weights, on the device."""
        with torch.device("meta"), _NoInitialisation():
            model = GPT(self.model_config)
        model.load_state_dict(self.weights, assign=True)
        return model.to(device)


class _NoInitialisation(TorchFunctionMode):
    """Leaves weights as they are: on "meta" there are none, and to draw them there PyTorch imports its compiler, for a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def save_checkpoint(
    path: Path,
    *,
    model: GPT,
    train_config: dict[str, Any],
    stage: Stage,
    identity: dict[str, Any],
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
        "stage": stage,
        "identity": identity,
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


def load_checkpoint(path: Path, stage: Stage = "pretraining", mapped: bool = True) -> Checkpoint:
    """Read a checkpoint without running anything that is in it; mapped, its tensors are read from the file when they are used.

    The stage decides which command is named where there is none: a checkpoint of another stage is the caller's to refuse.
    """
    path = path / BEST if path.is_dir() else path
    make = command_for(MAKERS[stage], path.parent)
    if not path.is_file():
        there = [] if path.name in (BEST, LAST) else sorted(str(other) for other in path.parent.glob("*.pt"))
        raise UserError(f"no checkpoint at {path}. " + (f"There is {' and '.join(there)}" if there else f"Run: {make}"))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        if content["format"] != FORMAT:
            raise UserError(f"{path} has checkpoint format {content['format']}, not {FORMAT}. Make it again: {make}")
        return Checkpoint(
            path=path,
            weights=content["model"],
            model_config=ModelConfig(**content["model_config"]),
            train_config=content["train_config"],
            stage=content.get("stage", "pretraining"),
            identity=content.get("identity", {}),
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
