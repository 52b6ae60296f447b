"""Checkpoints: one file with everything that sampling, tuning and evaluation need.

A checkpoint contains only tensors, numbers, strings, bytes, lists and dicts, so reading one can never run code.
"""

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from config import ModelConfig, Order, Script, Stage
from model import GPT
from presets import command_for
from system.errors import UserError
from system.files import atomic_write
from tokens.tokenizer import Tokenizer

FORMAT = 1
MAKERS: dict[Stage, Script] = {"pretraining": "train_xcoax.py", "tuning": "finetune_xcoax.py"}
BEST = "best_checkpoint.pt"
LAST = "last_checkpoint.pt"
RESUMING = ("optimizer", "scaler", "random", "best_val_loss")  # only in the last checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint; its tensors are mapped from the file."""

    path: Path
    weights: dict[str, torch.Tensor]
    model_config: ModelConfig
    train_config: dict[str, Any]
    stage: Stage
    must_match: dict[str, Any]  # settings that must match when resuming; named `identity` in the file
    tokenizer: Tokenizer
    order: Order
    step: int
    tokens: int  # seen in training
    val_loss: float  # nats per token
    resume_state: dict[str, Any] | None  # in the last checkpoint: what resuming needs besides the weights

    def make_model(self, device: torch.device) -> GPT:
        """The model with its weights, on the device."""
        with torch.device("meta"), _NoInitialization():
            model = GPT(self.model_config)
        model.load_state_dict(self.weights, assign=True)
        return model.to(device)


class _NoInitialization(TorchFunctionMode):
    """Skips initialization: on "meta" there is nothing to initialize, and PyTorch would spend a second importing its compiler."""

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
    must_match: dict[str, Any],
    tokenizer: Tokenizer,
    order: Order,
    step: int,
    tokens: int,
    val_loss: float,
    resume_state: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint; the previous one stays until the new one is complete."""
    content = {
        "format": FORMAT,
        "model": model.state_dict(),
        "model_config": asdict(model.config),
        "train_config": train_config,
        "stage": stage,
        "identity": must_match,
        "tokenizer": tokenizer.model,
        "order": order,
        "step": step,
        "tokens": tokens,
        "val_loss": val_loss,
        **(resume_state or {}),
    }
    try:
        with atomic_write(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch wraps the error of the write
        if not isinstance(cause, OSError):
            raise
        kept = f"; the previous one is intact: {path}" if path.is_file() else ""
        raise UserError(
            f"cannot save the checkpoint of step {step}: {cause.strerror}{kept}. Free some space and run the same command again"
        ) from error


def load_checkpoint(path: Path, stage: Stage = "pretraining", mapped: bool = True) -> Checkpoint:
    """Read a checkpoint without running anything in it; if mapped, tensors are read from the file when used.

    The stage only decides which command is suggested if there is no checkpoint; callers check the stage of what they get.
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
            must_match=content.get("identity", {}),
            tokenizer=Tokenizer(content["tokenizer"], f"the tokenizer in {path}"),
            order=content["order"],
            step=content["step"],
            tokens=content["tokens"],
            val_loss=content["val_loss"],
            resume_state={name: content[name] for name in RESUMING} if RESUMING[0] in content else None,
        )
    # All that a foreign or damaged file can raise: refusals of the unpickler, a broken archive, unexpected contents.
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path} is not a checkpoint of this project, or is damaged; nothing in it was run. Make it again: {make}"
        ) from error
