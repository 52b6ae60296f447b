"""Weights, gradients and optimizer state divided among the ranks, by PyTorch's fully_shard; and whole again, to sample or save.

Tensors that are not divided pass through every function here unchanged, so the loop does not ask which it has.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from model import GPT
from system.ranks import Ranks


def shard_model(model: GPT, ranks: Ranks, device: torch.device) -> None:
    """Leave each rank its part of every weight. A block's weights are whole only while it computes."""
    mesh = init_device_mesh(device.type, (ranks.count,))
    for module in (*model.blocks, model):
        sharded: FSDPModule = fully_shard(module, mesh=mesh)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has no other
        sharded.set_gradient_divide_factor(1.0)  # gradients add up: the loss is divided by the targets of all ranks


def is_sharded(model: GPT) -> bool:
    """Whether each rank has only a part of the weights."""
    return isinstance(model, FSDPModule)


def expect_gradients(model: GPT, complete: bool) -> None:
    """Before a backward pass: whether the gradients are complete after it, so that the ranks add them up."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(complete)


def give_back(model: GPT) -> None:
    """After a forward pass without a backward one: keep only this rank's part again."""
    if isinstance(model, FSDPModule):
        model.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor; every rank must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_like(tensor: Tensor, own: Tensor) -> Tensor:
    """This rank's part of a whole tensor, divided as `own` is."""
    if not isinstance(own, DTensor):
        return tensor
    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements, src_data_rank=None)  # nothing is sent


def all_whole(value: Any, is_kept: bool) -> Any:
    """A nested value, such as the state of an optimizer, with whole tensors, on the CPU where they were divided.

    Every rank must ask for it; only one of them needs to keep what was divided.
    """
    if isinstance(value, dict):
        return {key: all_whole(inner, is_kept) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(all_whole(inner, is_kept) for inner in value)
    if not isinstance(value, DTensor):
        return value
    tensor = whole(value)
    return tensor.cpu() if is_kept else None


def load_weights(model: GPT, weights: dict[str, Tensor]) -> None:
    """Load whole weights."""
    model.load_state_dict({name: part_like(weights[name], own) for name, own in model.state_dict().items()})


def whole_model(model: GPT) -> GPT:
    """The model with whole weights; a copy, if they are divided. Every rank must ask for it."""
    if not is_sharded(model):
        return model
    with torch.device("meta"):
        copy = GPT(model.config)
    copy.load_state_dict({name: whole(tensor).detach() for name, tensor in model.state_dict().items()}, assign=True)
    return copy.to(model.cos.device)
