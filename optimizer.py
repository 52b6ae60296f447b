"""AdamW and Muon, which parameter goes to which, and the learning rate of every step."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from config import LoopConfig
from errors import UserError
from model import GPT

# Muon: Keller Jordan and others, https://kellerjordan.github.io/posts/muon/ (KellerJordan/Muon).
MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5
# The quintic a x + b x^3 + c x^5 pushes small singular values up as fast as it can. It does not converge to 1 but
# leaves them between about 0.7 and 1.2, which trains as well.
A, B, C = 3.4445, -4.7750, 2.0315
# Moonlight (arXiv 2502.16982, section 2.2): an orthogonal matrix has entries of size 1 / sqrt(max(rows, columns)) and an update of
# AdamW entries of about 0.2. Scaled to match, Muon takes AdamW's learning rate and weight decay.
ADAMW_UPDATE_SIZE = 0.2


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix to each matrix of a stack, roughly, by the Newton-Schulz iteration."""
    if matrices.shape[-2] > matrices.shape[-1]:  # the products below are square in the rows: let these be the short side
        return orthogonalise(matrices.transpose(-2, -1)).transpose(-2, -1)
    # The iteration holds up in bfloat16, which a GPU is made for. A CPU without bfloat16 instructions is slow at it; one
    # with them gains a factor of two in this small part of a step, and would get other numbers than its neighbours.
    dtype = torch.bfloat16 if matrices.is_cuda else torch.float32
    norms: Tensor = torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=1e-7)  # at least the largest singular value; 0 stays 0
    x = (matrices / norms).to(dtype)  # (N, rows, columns)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.mT)  # (N, rows, rows)
        polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)  # (N, rows, rows)
        x = torch.baddbmm(x, polynomial, x, beta=A)  # (N, rows, columns)
    return x.to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for hidden matrices. Written anew beside torch.optim.Muon because that one
    works matrix by matrix, in bfloat16 on any device."""

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        assert all(matrix.dim() == 2 for matrix in matrices)
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # torch declares two overloads
        """One update of every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    same_shape[matrix.shape].append(matrix)
            for shape, matrices in same_shape.items():
                directions = orthogonalise(torch.stack([self._momentum(matrix) for matrix in matrices]))
                size = ADAMW_UPDATE_SIZE * math.sqrt(max(shape))
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction, alpha=-group["lr"] * size)

    def _momentum(self, matrix: torch.nn.Parameter) -> Tensor:
        """The running mean of the gradients with this one in it, seen one step ahead (Nesterov)."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
        ahead: Tensor = torch.lerp(matrix.grad, state["momentum"], MOMENTUM)
        return ahead


class Optimizers:
    """One or two optimizers that act as one.

    With a GradScaler: unscale_ each of `optimizers`, clip, and call step() only where the norm of the gradient is finite. (Its own
    step(optimizer) would let one of the two go on where only the other overflowed.) Then scaler.update().
    """

    def __init__(self, named: dict[str, torch.optim.Optimizer]) -> None:
        self.named = named

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return list(self.named.values())

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def set_learning_rate(self, lr: float) -> None:
        for group in self.param_groups:
            group["lr"] = lr

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.named.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the running means of the run that gave this state; learning rate, weight decay and the like stay as they were set."""
        if state.keys() != self.named.keys():
            theirs, ours = " and ".join(state), " and ".join(self.named)
            raise UserError(f"the checkpoint holds the state of {theirs}, this run uses {ours}. Go on with the other --optimizer")
        for name, optimizer in self.named.items():
            # Our own settings go in with the state, because PyTorch lays the state out for them: another device has other ones.
            optimizer.load_state_dict({"state": state[name]["state"], "param_groups": optimizer.state_dict()["param_groups"]})


def make_optimizer(model: GPT, config: LoopConfig, device_type: str) -> Optimizers:
    """AdamW on every parameter; or Muon on the matrices inside the blocks and AdamW on embeddings, head and norms."""
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
        fused=device_type in ("cuda", "cpu") or None,  # on a CPU three to six times as fast too
    )
    optimizers: dict[str, torch.optim.Optimizer] = {"adamw": adamw}
    if hidden:
        optimizers["muon"] = Muon(hidden, config.lr, config.weight_decay)
    return Optimizers(optimizers)


def learning_rate(config: LoopConfig, step: int) -> float:
    """The rate of a step, 0 to max_steps - 1: above zero in each of them; at max_steps, which is never taken, the floor is reached.

    The warmup may be longer than the run: then the rate rises as far as it comes.
    """
    left = max(0, config.max_steps - step)
    rising = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "wsd":
        cooldown = config.cooldown_share * config.max_steps
        share = min(1.0, left / cooldown) if cooldown else 1.0
    else:
        after_warmup = config.max_steps - config.warmup_steps
        share = 0.5 - 0.5 * math.cos(math.pi * min(1.0, left / after_warmup)) if after_warmup > 0 else 1.0
    return config.lr * min(rising, config.min_lr_share + (1 - config.min_lr_share) * share)
