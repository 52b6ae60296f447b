"""The optimizers of a model: which parameters AdamW updates, and which Muon."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from config import LoopConfig
from model import GPT
from system.errors import UserError
from system.ranks import ALONE, Ranks
from training.muon import Muon
from training.sharding import part_like

STEPS = "step"
STATE = {"adamw": (STEPS, "exp_avg", "exp_avg_sq"), "muon": ("momentum",)}  # the tensors of each parameter


class Optimizers:
    """One or two optimizers that act as one.

    With a GradScaler: unscale_ each of `optimizers`, clip, call step() only if the gradient norm is finite, then scaler.update().
    (scaler.step(optimizer) would skip only the optimizer whose gradients overflowed and let the other one step.)
    """

    def __init__(self, named: dict[str, torch.optim.Optimizer], adamw_share: float = 1.0) -> None:
        self.named = named
        self._adamw_share = adamw_share  # AdamW's learning rate as a share of the learning rate

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return list(self.named.values())

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def set_learning_rate(self, lr: float) -> None:
        for name, optimizer in self.named.items():
            for group in optimizer.param_groups:
                group["lr"] = lr * (self._adamw_share if name == "adamw" else 1.0)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.named.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the moments of an earlier run; learning rate, weight decay and the like keep their present settings."""
        if state.keys() != self.named.keys():
            theirs, ours = " and ".join(state), " and ".join(self.named)
            raise UserError(
                f"the checkpoint has the state of {theirs}, this run uses {ours}. Resume with the --optimizer of the checkpoint"
            )
        for name, optimizer in self.named.items():
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            _require_moments(state[name]["state"], parameters, STATE[name])
            moments = {
                index: {key: part_like(value, parameters[index]) if value.dim() else value for key, value in of_parameter.items()}
                for index, of_parameter in state[name]["state"].items()
            }
            # Our param_groups go in with the state, since PyTorch places the state according to them: they differ between devices.
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _require_moments(state: Any, parameters: Sequence[torch.nn.Parameter], names: Collection[str]) -> None:
    """Refuse a state that is not of these parameters: their fused update checks nothing, and ends the process."""
    for index, moments in state.items():
        if moments.keys() != {*names}:
            raise ValueError(f"the optimizer's state of parameter {index} has {', '.join(map(str, moments))}")
        for name, value in moments.items():
            shape = () if name == STEPS else parameters[index].shape
            is_plain = value.layout == torch.strided and value.is_contiguous() and value.is_floating_point()
            if value.shape != shape or not is_plain:
                raise ValueError(f"the optimizer's state of parameter {index} has {name} of shape {tuple(value.shape)} in {value.dtype}")


def make_optimizer(
    model: GPT, config: LoopConfig, device_type: str, ranks: Ranks = ALONE, dtype: torch.dtype = torch.float32
) -> Optimizers:
    """AdamW on every parameter; or Muon on the matrices inside the blocks and AdamW on embeddings, head and norms.

    `dtype` is that of the model's own products.
    """
    hidden = [parameter for parameter in model.blocks.parameters() if parameter.dim() == 2] if config.optimizer == "muon" else []
    taken = set(hidden)
    rest = [parameter for parameter in model.parameters() if parameter not in taken]
    adamw = torch.optim.AdamW(
        [
            {"params": [parameter for parameter in rest if parameter.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [parameter for parameter in rest if parameter.dim() < 2], "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=device_type in ("cuda", "cpu") or None,  # three to six times as fast, on a CPU too
    )
    optimizers: dict[str, torch.optim.Optimizer] = {"adamw": adamw}
    if hidden:
        products = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32  # float16 is untried
        optimizers["muon"] = Muon(hidden, config.lr, config.weight_decay, config.momentum, ranks, products)
    share = config.adamw_lr / config.lr if hidden and config.adamw_lr else 1.0
    return Optimizers(optimizers, share)
