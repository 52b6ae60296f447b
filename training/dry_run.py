"""What a training run would take: parameters, memory by part, time. Needs neither data nor a GPU."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from config import TrainConfig
from formats.shards import open_dataset
from model import CHUNK_ROWS, GPT
from presets import PREPROCESS_PRESETS
from system.amounts import amount
from system.device import autocast, choose_dtype, device_name
from system.device_names import PEAK_TFLOPS
from system.escapes import tell
from training.optimizer import make_optimizer
from training.time_left import describe_duration

SHARE_OF_PEAK = 0.4
STATES = {"adamw": 2, "muon": 1}  # numbers that an optimizer keeps for each parameter


def describe_run(config: TrainConfig) -> str:
    """The shape, the memory and the time of a run on a GPU, as text for a terminal."""
    shape = config.model
    with FakeTensorMode():  # shapes and sizes without memory
        model = GPT(shape)
        optimizers = make_optimizer(model, config, "cuda").named
        kept = {
            name: STATES[name] * _bytes([parameter for group in optimizer.param_groups for parameter in group["params"]])
            for name, optimizer in optimizers.items()
        }
    dtype = torch.bfloat16 if config.dtype == "auto" else choose_dtype(config.dtype, torch.device("cpu"))
    first = activation_bytes(config, 1, dtype)
    each = activation_bytes(config, 2, dtype) - first
    weights = _bytes(list(model.parameters()))
    step = config.sequences_per_step * shape.block_size
    total = "" if config.hours else f"; {amount(config.max_steps, 'step')}, {config.max_steps * step / 1e6:,.1f} million tokens in all"

    def sizes(sequences: int) -> dict[str, float]:
        logits = min(CHUNK_ROWS, sequences * shape.block_size) * shape.vocab_size * (4 + 2 * dtype.itemsize)
        return {
            "weights": weights,
            "gradients": weights,
            **kept,
            f"activations of {amount(sequences, 'sequence')}": first + each * (sequences - 1),
            "logits of a chunk": logits,
        }

    return "\n".join(
        (
            f"layers {shape.n_layer}, heads {shape.n_head}, width {shape.n_embed}, context {shape.block_size:,}, ids {shape.vocab_size:,}: "
            f"{model.count_parameters() / 1e6:,.1f} M parameters",
            f"a step: {config.batch_size} × {amount(config.grad_accum, 'sequence')}, {step:,} tokens{total}",
            f"MB on one GPU that trains alone, eager, in {str(dtype).removeprefix('torch.')}:",
            *(f"  {name:<30}{size / 1e6:10,.0f}" for name, size in sizes(config.batch_size).items()),
            f"  {'together at least':<30}{sum(sizes(config.batch_size).values()) / 1e6:10,.0f}",
            "If that does not fit, fewer sequences are computed at once; with one, together at least "
            f"{sum(sizes(1).values()) / 1e6:,.0f} MB.",
            *_times(config, model.flops_per_token(), dtype),
        )
    )


def with_vocabulary(config: TrainConfig) -> TrainConfig:
    """The run with the number of ids of its data folder or, if that is not there yet, of the preset that makes it, or the default."""
    folder = Path(config.data_dir)
    made = [preset.vocab_size for preset in PREPROCESS_PRESETS.values() if Path(preset.data_dir) == folder]
    if (folder / "meta.json").is_file():
        made = [open_dataset(folder).vocab_size]
    elif not made:
        tell(f"{folder} is not there yet: {config.model.vocab_size:,} ids are assumed")
    return replace(config, model=replace(config.model, vocab_size=made[0])) if made else config


def activation_bytes(config: TrainConfig, sequences: int, dtype: torch.dtype) -> int:
    """What the forward pass over these sequences keeps for the backward pass; recomputed blocks add the one that is being computed."""
    stored = _stored_bytes(config, sequences, dtype, config.checkpoint_activations)
    if config.checkpoint_activations:
        stored += (_stored_bytes(config, sequences, dtype, False) - stored) // config.model.n_layer
    return stored


def _stored_bytes(config: TrainConfig, sequences: int, dtype: torch.dtype, recompute: bool) -> int:
    kept: dict[int, Tensor] = {}  # by storage; several tensors may share one

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with FakeTensorMode():
        model = GPT(config.model)
        model.checkpoint_activations = recompute
        ids = torch.zeros(sequences, config.model.block_size, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(ids.device, dtype):
            loss = model(ids, ids)
        for own in (*model.parameters(), *model.buffers()):
            kept.pop(own.untyped_storage()._cdata, None)
        del loss
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _times(config: TrainConfig, flops_per_token: float, dtype: torch.dtype) -> list[str]:
    """A line for each GPU: the one of this machine, or else all whose peak is known."""
    if dtype == torch.float32:
        return ["Time: not computed, because only the peaks of 16-bit products are known."]
    here = device_name(torch.device("cuda")) if torch.cuda.is_available() else None
    peaks = {here: PEAK_TFLOPS[here]} if here in PEAK_TFLOPS else PEAK_TFLOPS
    per_hour = {name: SHARE_OF_PEAK * tflops * 1e12 * 3600 / flops_per_token for name, tflops in peaks.items()}  # tokens
    if config.checkpoint_activations:
        per_hour = {name: rate * 3 / 4 for name, rate in per_hour.items()}  # a second forward pass
    if config.hours:
        head = f"Million tokens in {amount(config.hours, 'hour')}"
        values = {name: f"{rate * config.hours / 1e6:,.1f}" for name, rate in per_hour.items()}
        on_cpu = "On a CPU it reads fewer; the log shows the speed."
    else:
        head = "Time"
        tokens = config.max_steps * config.sequences_per_step * config.model.block_size
        seconds = {name: tokens / rate * 3600 for name, rate in per_hour.items()}
        values = {name: "under 1 s" if each < 1 else describe_duration(each) for name, each in seconds.items()}
        on_cpu = "On a CPU it takes longer; the log shows the time left."
    return [
        f"{head} on one GPU, without evaluations, if it reaches {SHARE_OF_PEAK:.0%} of its peak (an assumption):",
        *(f"  {name:<30}{value:>12}" for name, value in values.items()),
        on_cpu,
    ]


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
