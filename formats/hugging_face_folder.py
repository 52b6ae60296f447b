"""Reading a Hugging Face folder as a checkpoint. No code of the folder runs, and its files cannot name or link to other files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from config import PATHS, ModelConfig
from formats.checkpoint import Checkpoint, check_contents
from formats.hugging_face import EMBEDDING, HEAD, INDEX, OURS, TOKENIZER, WEIGHTS, our_config, their_name
from model import GPT
from system.errors import UserError, first_line
from system.files import refuse_link_out
from tokens.tokenizer import Tokenizer

CONFIG = "config.json"
MAX_JSON_BYTES = 64 << 20
AGAIN = "Export or download it again"


def is_hugging_face_folder(folder: Path) -> bool:
    """Whether a folder holds a model in the format of Hugging Face. Our folders of checkpoints have a config.json of another kind."""
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX, OURS)) or (
        (folder / CONFIG).is_file() and "architectures" in _read_json(folder / CONFIG)
    )


def read_hugging_face_folder(folder: Path) -> Checkpoint:
    """The model of a folder. Its tensors are mapped from the files."""
    for path in folder.iterdir():
        refuse_link_out(path)
    config = our_config(_read_json(folder / CONFIG), str(folder / CONFIG))
    tokenizer, training = _read_ours(folder)
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(f"{folder}: {TOKENIZER} has {tokenizer.vocab_size:,} ids, {CONFIG} says {config.vocab_size:,}. {AGAIN}")
    weights = _read_weights(folder, config)
    try:
        settings = {name: value for name, value in training.get("train_config", {}).items() if name not in PATHS}
        checkpoint = Checkpoint(
            path=folder,
            weights=weights,
            model_config=config,
            train_config=settings,  # without the places that a stranger may name
            stage=training.get("stage", "missing"),
            must_match=dict(training.get("identity", {})),
            tokenizer=tokenizer,
            order=training.get("order", "missing"),
            step=training.get("step", 0),
            tokens=training.get("tokens", 0),
            val_loss=float(training.get("val_loss") or "nan"),
            resume_state=None,
        )
        check_contents(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{folder / OURS} is damaged: {first_line(error)}. {AGAIN}") from error
    return checkpoint


def _read_ours(folder: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer and the facts that only our exports have."""
    for name in (TOKENIZER, OURS):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}. If the model was tuned from an export of this project, copy {TOKENIZER} and {OURS} "
                "from that folder into this one; a model with another tokenizer cannot be used here"
            )
    return Tokenizer.load(folder / TOKENIZER), _read_json(folder / OURS)


def _read_weights(folder: Path, config: ModelConfig) -> dict[str, torch.Tensor]:
    """All tensors under our names, with padding rows."""
    there = dict(_tensors(folder))
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in GPT(config).state_dict().items()}
    weights: dict[str, torch.Tensor] = {}
    for name, shape in wanted.items():
        theirs = their_name(name)
        if theirs not in there:
            raise UserError(f"{folder}: the weights lack {theirs}. {AGAIN}")
        tensor = there.pop(theirs)
        if theirs in (EMBEDDING, HEAD) and tensor.dim() == 2 and len(tensor) == config.vocab_size:
            tensor = F.pad(tensor, (0, 0, 0, config.padded_vocab_size - config.vocab_size))
        if tensor.shape != shape or tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise UserError(f"{folder}: {theirs} is {tuple(tensor.shape)} in {tensor.dtype}, {CONFIG} says {tuple(shape)}. {AGAIN}")
        weights[name] = tensor
    if config.tie_embeddings:
        there.pop(HEAD, None)  # some programs write the tied matrix twice
    if there:
        raise UserError(f"{folder}: the weights have {', '.join(sorted(there)[:3])}, which this architecture does not have. {AGAIN}")
    return weights


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in _weight_files(folder):
        try:
            yield from load_file(folder / name).items()
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise UserError(f"{folder / name} is damaged ({first_line(error)}). {AGAIN}") from error


def _weight_files(folder: Path) -> list[str]:
    if not (folder / INDEX).is_file():
        if not (folder / WEIGHTS).is_file():
            raise UserError(
                f"{folder} has no {WEIGHTS}. Other formats are not read, since a file of one of them can run code when it is opened"
            )
        return [WEIGHTS]
    named = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise UserError(f"{folder / INDEX} is damaged: it has no weight_map. {AGAIN}")
    files = sorted({str(name) for name in named.values()})
    there = {path.name for path in folder.iterdir() if path.is_file()}  # the system need not be asked about a name that it cannot have
    for name in files:
        if name not in there or not name.endswith(".safetensors"):
            raise UserError(f"{folder / INDEX} names {name!r}, which is not a .safetensors file of this folder. {AGAIN}")
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, at most {MAX_JSON_BYTES:,} are expected")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}). {AGAIN}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: not an object. {AGAIN}")
    return value
