"""Loading a checkpoint for use: as a model, or in an engine."""

import torch

from config import InferenceConfig, Stage
from formats.checkpoint import Checkpoint
from formats.named_model import load_named_model
from model import GPT
from sampling.engine import Engine
from sampling.inference_weights import prepare_for_inference
from system.device import choose_device, choose_dtype, explain_out_of_memory
from system.errors import BAD_FLAGS, UserError

MAX_SEQUENCES = 8  # texts generated at once for a prompt


def load_engine(config: InferenceConfig, stage: Stage = "pretraining", max_sequences: int = MAX_SEQUENCES) -> tuple[Checkpoint, Engine]:
    """The checkpoint named by --model-path, and an engine for its model."""
    checkpoint, model = load_model(config, stage)
    return checkpoint, Engine(model, max_sequences, graphs=True)


def load_model(config: InferenceConfig, stage: Stage) -> tuple[Checkpoint, GPT]:
    """The checkpoint named by --model-path, and its model on the device."""
    checkpoint = load_named_model(config.model_path, stage)
    device = choose_device(config.device)
    if config.quantize == "int8" and device.type != "cpu":
        raise UserError(
            f"--quantize int8 works on the CPU only; the device is {device.type}. Add --device cpu, or leave out --quantize", BAD_FLAGS
        )
    dtype = choose_dtype(config.dtype, device)
    model = prepare_for_inference(checkpoint.make_model(torch.device("cpu")), dtype, config.quantize == "int8")
    with explain_out_of_memory(""):
        model = model.to(device)
    return checkpoint, model


def require_tuned(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that was never trained on instructions."""
    if checkpoint.stage != "tuning":
        raise UserError(
            f"{checkpoint.path} was pretrained and not tuned: it was not trained on instructions. Tune it with: "
            f"python finetune_xcoax.py --model-path {checkpoint.path}; or talk to it with sample_xcoax.py"
        )
