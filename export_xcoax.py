"""Export a checkpoint for other programs: transformers, vLLM, llama.cpp.

    python export_xcoax.py
    python export_xcoax.py --model-path out/xcoax/best_checkpoint.pt --out-dir out/xcoax/hf --license mit
    python export_xcoax.py --format gguf --dtype q8_0

Without --format it writes a Hugging Face folder with weights, tokenizer, chat template and model card, and checks it with transformers if
that is installed. What it writes appears under its name only when it is complete.
"""

import importlib.metadata
import importlib.util
from pathlib import Path

from system.startup import run_script

import torch

from config import ExportConfig
from exporting.check import check_with_transformers
from exporting.gguf_export import write_gguf
from exporting.hugging_face_export import write_hugging_face_folder
from exporting.staging import require_possible, staged_folder
from formats.checkpoint import Checkpoint
from formats.hub_models import is_on_hub
from formats.named_model import load_named_model
from presets import EXPORT_PRESETS
from system.command_line import read_flags
from system.errors import BAD_FLAGS, UserError, require
from system.escapes import tell
from system.files import lock_results


def main() -> None:
    config = read_flags(EXPORT_PRESETS, __doc__)
    require(bool(config.out_dir) or not is_on_hub(config.model_path), "--out-dir: name the folder to write for a model from the hub")
    require("://" not in config.out_dir, f"--out-dir {config.out_dir}: a folder of this machine. To publish it afterwards: hf upload")
    checkpoint = load_named_model(config.model_path, "tuning")
    folder = Path(config.out_dir) if config.out_dir else checkpoint.folder / config.format
    tell(export_folder(config, checkpoint, folder) if config.format == "hf" else export_file(config, checkpoint, folder))


def export_folder(config: ExportConfig, checkpoint: Checkpoint, folder: Path) -> str:
    """Write a Hugging Face folder, and tell what was written."""
    dtype = getattr(torch, config.stored_dtype)
    checked = "not checked: --no-verify"
    with staged_folder(folder, config.force) as staging:
        write_hugging_face_folder(checkpoint, staging, dtype, config.license)
        if config.verify:
            trouble = missing_transformers()
            checked = f"not checked: {trouble}" if trouble else check_with_transformers(checkpoint, staging, dtype)
    return f"{folder}: {config.stored_dtype}, {checked}"


def export_file(config: ExportConfig, checkpoint: Checkpoint, folder: Path) -> str:
    """Write a GGUF file, and tell what was written."""
    require_possible(folder.resolve())
    path = folder / f"model-{config.stored_dtype}.gguf"
    if not importlib.util.find_spec("gguf"):
        raise UserError("--format gguf needs the package gguf. Run: pip install 'gguf>=0.19,<0.20'", BAD_FLAGS)
    with lock_results(folder, "--out-dir"):
        require(config.force or not path.exists(), f"{path} is there already. Give another --out-dir, or add --force to replace it")
        write_gguf(checkpoint, path, config.stored_dtype, config.license)
    return f"{path}: {path.stat().st_size / 1e6:,.1f} MB, {config.stored_dtype}"


def missing_transformers() -> str:
    """Why an export cannot be checked; empty if it can."""
    way_out = "To check it, run pip install 'transformers>=5.23,<6' and export again with --force"
    if not importlib.util.find_spec("transformers"):
        return f"transformers is not installed. {way_out}"
    version = importlib.metadata.version("transformers")
    return "" if int(version.partition(".")[0]) >= 5 else f"this is transformers {version}, which is too old. {way_out}"


if __name__ == "__main__":
    run_script(main)
