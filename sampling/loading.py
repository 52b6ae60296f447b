"""Loading a checkpoint into an engine."""

import torch

from config import SamplerConfig, Stage
from formats.checkpoint import Checkpoint
from formats.named_model import load_named_model
from sampling.engine import Engine
from sampling.inference_weights import prepare_for_inference
from system.device import choose_device, choose_dtype, explain_out_of_memory
from system.errors import BAD_FLAGS, UserError

MAX_SEQUENCES = 8  # texts generated at once for a prompt


def load_engine(config: SamplerConfig, stage: Stage, max_sequences: int = MAX_SEQUENCES) -> tuple[Checkpoint, Engine]:
    """The checkpoint named by --model-path, and an engine for its model."""
    checkpoint = load_named_model(config.model_path, stage)
    device = choose_device(config.device)
    if config.quantize == "int8" and device.type != "cpu":
        raise UserError(
            f"--quantize int8 works on the CPU only; the device is {device.type}. Add --device cpu, or leave out --quantize", BAD_FLAGS
        )
    dtype = choose_dtype(config.dtype, device)
    model = prepare_for_inference(checkpoint.make_model(torch.device("cpu")), dtype, config.quantize == "int8")
    with explain_out_of_memory("Try --device cpu"):
        model = model.to(device)
    return checkpoint, Engine(model, max_sequences, graphs=True)
