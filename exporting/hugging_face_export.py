"""Writing a checkpoint as a Hugging Face folder, which transformers and vLLM load without any code of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from config import PATHS
from exporting.fast_tokenizer import stop_ids, tokenizer_config, tokenizer_json
from exporting.model_card import write_model_card
from formats.checkpoint import Checkpoint
from formats.hugging_face import OURS, TOKENIZER, their_config, their_name
from system.errors import BAD_FLAGS, UserError, describe_os_error, first_line
from system.files import write_bytes, write_json

PADDED = ("embedding.weight", "head.weight")
MAX_SHARD_GB = 5  # the hub's advice


def exported_weights(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors under our names, rounded to a dtype, without the padding rows of the vocabulary."""
    rows = checkpoint.model_config.vocab_size
    cut = {name: checkpoint.weights[name][:rows].clone() for name in PADDED if name in checkpoint.weights}
    rounded = {name: tensor.to(dtype).contiguous() for name, tensor in {**checkpoint.weights, **cut}.items()}
    if not all(tensor.isfinite().all() for tensor in rounded.values()):
        raise UserError(f"a weight is too large for {str(dtype).removeprefix('torch.')}, or is not finite. Try --dtype float32", BAD_FLAGS)
    return rounded


def write_hugging_face_folder(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype, license: str) -> None:
    """Write all files into an empty folder."""
    named = str(dtype).removeprefix("torch.")
    tokenizer, stage = checkpoint.tokenizer, checkpoint.stage
    _write_weights({their_name(name): tensor for name, tensor in exported_weights(checkpoint, dtype).items()}, folder)
    ids = {"bos_token_id": tokenizer.end_of_text, "pad_token_id": int(tokenizer.processor.pad_id())}
    stops = stop_ids(tokenizer, stage)
    contents: dict[str, Mapping[str, Any]] = {
        "config.json": {**their_config(checkpoint.model_config, named), **ids, "eos_token_id": stops[0]},
        "generation_config.json": {**ids, "eos_token_id": stops, "do_sample": True, "temperature": 0.8, "top_k": 200},  # the published ones
        "tokenizer.json": tokenizer_json(tokenizer),
        "tokenizer_config.json": tokenizer_config(tokenizer, stage, checkpoint.model_config.block_size),
        OURS: {
            "order": checkpoint.order,
            "stage": stage,
            "step": checkpoint.step,
            "tokens": checkpoint.tokens,
            "val_loss": checkpoint.val_loss,
            "train_config": {name: value for name, value in checkpoint.train_config.items() if name not in PATHS},
            "identity": checkpoint.must_match,
        },
    }
    for name, content in contents.items():
        write_json(folder / name, content)
    write_bytes(folder / TOKENIZER, tokenizer.model)
    for path in folder.glob("*.safetensors"):  # the library makes files that only their owner can read
        path.chmod((folder / TOKENIZER).stat().st_mode)
    if checkpoint.order == "backward":
        write_bytes(folder / "reverse.py", Path(__file__).with_name("reverse.py").read_bytes())
    write_model_card(checkpoint, folder, license)


def _write_weights(weights: dict[str, torch.Tensor], folder: Path) -> None:
    from huggingface_hub import save_torch_state_dict
    from safetensors import SafetensorError

    try:
        save_torch_state_dict(weights, folder, max_shard_size=f"{MAX_SHARD_GB}GB", metadata={"format": "pt"})
    except OSError as error:
        raise UserError(f"cannot write the weights: {describe_os_error(error)}") from error
    except SafetensorError as error:  # also for a full disk
        raise UserError(f"cannot write the weights to {folder} ({first_line(error)}). Free some space, or use another --out-dir") from error
