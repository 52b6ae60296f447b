"""Muon: momentum, orthogonalized, for the hidden matrices."""

import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from system.ranks import ALONE, Ranks
from training.sharding import part_like, whole

# Muon: Keller Jordan and others, https://kellerjordan.github.io/posts/muon/ (KellerJordan/Muon).
NEWTON_SCHULZ_STEPS = 5
LARGE = 256  # rows from which a batched product takes a CPU longer than one matrix after the other (measured)
# The quintic a x + b x^3 + c x^5 raises small singular values as fast as possible. It does not converge to 1 but leaves
# them between about 0.7 and 1.2, which trains equally well.
A, B, C = 3.4445, -4.7750, 2.0315
# Moonlight (arXiv 2502.16982, section 2.2): an orthogonal matrix has entries of size 1 / sqrt(max(rows, columns)) and an update of
# AdamW entries of about 0.2. Scaled to match, Muon takes AdamW's learning rate and weight decay.
ADAMW_UPDATE_SIZE = 0.2


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """For each matrix of a stack roughly the nearest (semi-)orthogonal matrix, by Newton-Schulz iteration.

    `dtype` is that of the products of large matrices on a CPU; those of small ones are in float32, since they take little of a step.
    On a GPU all are in bfloat16, which is precise enough; but a CPU without instructions for it would be slow.
    """
    if matrices.shape[-2] > matrices.shape[-1]:  # the products below are rows x rows: make that the short side
        return orthogonalize(matrices.transpose(-2, -1), dtype).transpose(-2, -1)
    is_large = matrices.shape[-2] >= LARGE
    if len(matrices) > 1 and is_large and not matrices.is_cuda:
        return torch.cat([orthogonalize(matrix.unsqueeze(0), dtype) for matrix in matrices])
    if matrices.is_cuda:
        dtype = torch.bfloat16
    elif not is_large:
        dtype = torch.float32
    norms: Tensor = torch.linalg.matrix_norm(matrices, keepdim=True).clamp(
        min=1e-7
    )  # an upper bound of the largest singular value; 0 stays 0
    x = (matrices / norms).to(dtype)  # (N, rows, columns)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(x, x.mT)  # (N, rows, rows)
        polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)  # (N, rows, rows)
        x = torch.baddbmm(x, polynomial, x, beta=A)  # (N, rows, columns)
    return x.to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized, for hidden matrices; those of one shape are processed together, and divided among the ranks.

    Not torch.optim.Muon, which processes one matrix at a time, in bfloat16 on any device.
    """

    def __init__(
        self,
        matrices: list[torch.nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float,
        ranks: Ranks = ALONE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        assert all(matrix.dim() == 2 for matrix in matrices)
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._ranks = ranks
        self._orthogonalize = partial(orthogonalize, dtype=dtype)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # torch declares two overloads
        """One update of every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    same_shape[matrix.shape].append(matrix)
            for shape, matrices in same_shape.items():
                momenta = [whole(momentum) for momentum in self._momenta(matrices, group["momentum"])]
                directions = self._ranks.each_row(self._orthogonalize, torch.stack(momenta))
                updates = [part_like(update, matrix) for update, matrix in zip(directions.unbind(), matrices, strict=True)]
                size = ADAMW_UPDATE_SIZE * math.sqrt(max(shape))
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, updates, alpha=-group["lr"] * size)

    def _momenta(self, matrices: list[Tensor], momentum: float) -> tuple[Tensor, ...]:
        """For each matrix the running mean of its gradients including this one, looking one step ahead (Nesterov)."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]  # all of them have one
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum"] for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        return torch._foreach_lerp(gradients, momenta, momentum)
