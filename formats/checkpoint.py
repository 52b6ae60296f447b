"""Checkpoints: one file with everything that sampling, tuning and evaluation need.

A checkpoint contains only tensors, numbers, strings, bytes, lists and dicts, so reading one can never run code.
"""

import hashlib
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch.overrides import TorchFunctionMode

from config import ModelConfig, Order, Script, Stage
from model import GPT
from presets import BACKCHAT_SMALL, BACKGPT_SMALL, FINETUNE_PRESETS, TRAIN_PRESETS, command_for
from system.errors import UserError, describe_os_error, first_line
from system.escapes import one_line
from system.files import atomic_write
from tokens.tokenizer import Tokenizer

FORMAT = 1
MAKERS: dict[Stage, Script] = {"pretraining": "train_xcoax.py", "tuning": "finetune_xcoax.py"}
BEST = "best_checkpoint.pt"
LAST = "last_checkpoint.pt"
NUMBERED = "checkpoint_{:06}.pt"  # of a step, with --keep-every
# What contents of the wrong shape or type can raise.
UNEXPECTED = (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError)
RESUMING = ("optimizer", "scaler", "random", "best_val_loss")  # only in the last checkpoint
PLAN = "plan"  # there too, of a run that was given hours
SECONDS = "seconds"  # there too, since a version that measures them


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

    @property
    def folder(self) -> Path:
        """The folder of the file; or of the model, if it is a Hugging Face folder."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def fingerprint(self) -> str:
        """The step, and a hash of weights that every training step changes."""
        weights = self.weights["norm.weight"].float().numpy().tobytes()
        return f"step {self.step} ({hashlib.sha256(weights).hexdigest()[:12]})"

    def make_model(self, device: torch.device) -> GPT:
        """The model with its weights, on the device."""
        model = self.make_empty_model()
        model.load_state_dict(self.weights, assign=True)
        return model.to(device)

    def make_empty_model(self) -> GPT:
        """A model of this shape without weights."""
        with torch.device("meta"), _NoInitialization():
            return GPT(self.model_config)


class _NoInitialization(TorchFunctionMode):
    """Skips initialization: on "meta" there is nothing to initialize, and PyTorch would spend a second importing its compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def save_checkpoint(
    path: Path,
    *,
    weights: Mapping[str, torch.Tensor],
    model_config: ModelConfig,
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
        "model": weights,
        "model_config": asdict(model_config),
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
        cause.filename = cause.filename or str(path)
        kept = f"; the previous one is intact: {path}" if path.is_file() else ""
        raise UserError(f"cannot save the checkpoint of step {step}: {describe_os_error(cause)}{kept}") from error


def load_checkpoint(path: Path, stage: Stage = "pretraining", mapped: bool = True) -> Checkpoint:
    """Read a checkpoint without running anything in it; if mapped, tensors are read from the file when used.

    Every byte is compared with the checksums in the file (0.6 s per gigabyte, measured on one core). The stage only decides which command
    is suggested if there is no checkpoint; callers check the stage of what they get.
    """
    path = path / BEST if path.is_dir() else path
    if not path.is_file():
        raise _missing(path, stage)
    while True:
        before = _identity(path)
        try:
            checkpoint = _load(path, stage, mapped)
        except UserError:
            if _identity(path) == before:
                raise
        else:
            if _identity(path) == before:
                return checkpoint


def _identity(path: Path) -> tuple[int, ...]:
    """Tells a file from the one that replaces it: torch opens a path once to read it and again to map it, training may come between."""
    there = path.stat()
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns


def _load(path: Path, stage: Stage, mapped: bool) -> Checkpoint:
    try:
        _check_archive(path)
        with warnings.catch_warnings(action="ignore"):  # torch warns about TorchScript before it refuses it
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        if content["format"] != FORMAT:
            found = one_line(repr(content["format"]), 80)
            raise UserError(f"{path} has checkpoint format {found}, and this version reads {FORMAT}. {_way_out(path, stage)}")
        checkpoint = Checkpoint(
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
            resume_state=_resume_state(content),
        )
        check_contents(checkpoint)
    # All that a foreign or damaged file can raise: refusals of the unpickler, a broken archive, unexpected contents.
    except (pickle.UnpicklingError, zipfile.BadZipFile, *UNEXPECTED) as error:
        raise UserError(
            f"{path} is not a checkpoint of this project, or is damaged ({first_line(error)}); nothing in it was run. "
            f"{_way_out(path, stage)}"
        ) from error
    return checkpoint


def numbered_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that --keep-every kept, in the order of their steps."""
    names = re.compile(r"checkpoint_(\d{6,})\.pt")
    found = sorted((int(match[1]), path) for path in folder.glob("*.pt") if (match := names.fullmatch(path.name)))
    return [path for _, path in found]


def _resume_state(content: dict[str, Any]) -> dict[str, Any] | None:
    """What resuming needs, in a last checkpoint."""
    if RESUMING[0] not in content:
        return None
    state = {name: content[name] for name in RESUMING} | {name: content.get(name) for name in (PLAN, SECONDS)}
    kinds = {"optimizer": dict, "scaler": dict, "random": dict, "best_val_loss": float, PLAN: dict | None, SECONDS: float | None}
    for name, kind in kinds.items():
        if not isinstance(state[name], kind):
            raise TypeError(f"{name} is a {type(state[name]).__name__}")
    return state


def _check_archive(path: Path) -> None:
    """Compare every byte with the checksums that torch.save writes and torch.load ignores."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its contents are compressed, as torch.save never does")
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:  # they overlap: a small file holds terabytes so
            raise ValueError("its contents are larger than the file")
        if len({*archive.namelist()}) < len(archive.namelist()):
            raise ValueError("two of its members have one name, so that readers may see different ones")
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} does not match")


def check_contents(checkpoint: Checkpoint) -> None:
    """Refuse contents that contradict each other, before anything is made from them."""
    config, weights = checkpoint.model_config, checkpoint.weights
    try:
        config.check()
    except UserError as error:
        raise ValueError(f"its config is impossible: {error}") from error
    layers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    shape = tuple(weights["embedding.weight"].shape)
    if len(layers) != config.n_layer or shape != (config.padded_vocab_size, config.n_embed):  # nothing larger is made from the config
        raise ValueError(f"its weights have {len(layers)} layers and embeddings of shape {shape}, its config says otherwise")
    wanted = checkpoint.make_empty_model().state_dict()
    if wrong := wanted.keys() ^ weights.keys():
        raise ValueError(f"its weights do not fit its config: {min(wrong)} is {'missing' if min(wrong) in wanted else 'unknown'}")
    dtype = weights["embedding.weight"].dtype
    for name, tensor in weights.items():
        is_plain = tensor.layout == torch.strided and tensor.is_contiguous() and tensor.is_floating_point()
        if tensor.shape != wanted[name].shape or not is_plain or tensor.dtype != dtype:
            raise ValueError(f"its weights do not fit its config: {name} has shape {tuple(tensor.shape)} in {tensor.dtype}")
    if checkpoint.tokenizer.vocab_size != config.vocab_size:
        raise ValueError(f"its tokenizer has {checkpoint.tokenizer.vocab_size} ids, its config says {config.vocab_size}")
    if checkpoint.order not in get_args(Order) or checkpoint.stage not in get_args(Stage):
        raise ValueError(f"its order is {checkpoint.order!r} and its stage {checkpoint.stage!r}")
    if min(checkpoint.step, checkpoint.tokens) < 0:
        raise ValueError(f"its step is {checkpoint.step}, its tokens are {checkpoint.tokens}")
    if broken := next((name for name, tensor in weights.items() if not _is_finite(tensor)), ""):
        raise ValueError(f"its {broken} has numbers that are not finite")
    kinds = {"step": int, "tokens": int, "val_loss": float, "train_config": dict, "must_match": dict}
    for name, kind in kinds.items():
        if not isinstance(value := getattr(checkpoint, name), kind):
            raise TypeError(f"{name} is a {type(value).__name__} where a {kind.__name__} is expected")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether no number is NaN or infinite: one of either would be the smallest or the largest. It takes no memory, unlike isfinite."""
    return not tensor.numel() or all(math.isfinite(bound) for bound in torch.stack(tensor.aminmax()).tolist())


def _missing(path: Path, stage: Stage) -> UserError:
    others = [] if path.name in (BEST, LAST) else sorted(str(other) for other in path.parent.glob("*.pt"))
    if others:
        return UserError(f"no checkpoint at {path}: no such file. Its folder has {', '.join(others)}: use that path")
    published, demo = (Path((TRAIN_PRESETS if stage == "pretraining" else FINETUNE_PRESETS)[name].out_dir) for name in ("xcoax", "demo"))
    hint = f"There is {demo}: to use it, add the word demo. " if path.parent == published and (demo / BEST).is_file() else ""
    return UserError(f"no checkpoint at {path}: no such file. {hint}{_way_out(path, stage)}")


def _way_out(path: Path, stage: Stage) -> str:
    """The likely mistake first, then what takes no time, then minutes, then a day."""
    ready = BACKGPT_SMALL if stage == "pretraining" else BACKCHAT_SMALL
    way_out = f"Check the path. {ready} comes with the repository. For another in minutes run: make demo; the preset demo uses it"
    if path.name in (BEST, LAST) and path.parent != Path():
        way_out += f". To make this one: {command_for(MAKERS[stage], path.parent)}"
    return way_out
