"""A model made light for generating: fewer and larger matrices, in fewer bits. A token costs the reading of its weights."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import GPT, NORM_EPSILON, Block, RMSNorm, Store, rotate

FEW_ROWS = 8  # up to so many ids at once the packed product of int8 is bound by memory; above it, by its arithmetic


class Matrix(nn.Module):
    """A matrix in a number type of its own; what it is multiplied with is rounded to that type."""

    weight: Tensor

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight)


class Int8Matrix(nn.Module):
    """A matrix of whole numbers from -127 to 127 and a scale for each of its rows; products are in bfloat16."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        scale = (weight.float().abs().amax(dim=1) / 127).clamp(min=1e-12).bfloat16()
        self.register_buffer("weight", (weight.float() / scale[:, None].float()).round().clamp(-127, 127).to(torch.int8), persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.to(torch.bfloat16).flatten(0, -2)
        if len(rows) <= FEW_ROWS:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = F.linear(rows, self.weight.to(torch.bfloat16)) * self.scale
        return y.view(*x.shape[:-1], -1)


class LightBlock(nn.Module):
    """A block with four matrices where there were seven: for one id at a time, each call costs.

    What the norms scale by is in the matrices behind them. The parts are not called but their `forward`, which is quicker.
    """

    scales: Tensor | None

    def __init__(self, block: Block, make: Callable[[Tensor], "Matrix | Int8Matrix"]) -> None:
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.head_size = attention.head_size
        joined = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight])
        self.heads = make(joined * block.attention_norm.weight)
        self.mixed = make(attention.output.weight)
        self.gates = make(torch.cat([mlp.gate.weight, mlp.up.weight]) * block.mlp_norm.weight)
        self.down = make(mlp.down.weight)
        scales: list[Tensor] = [norm.weight for norm in (attention.query_norm, attention.key_norm) if isinstance(norm, RMSNorm)]
        self.register_buffer("scales", torch.stack(scales).unsqueeze(1) if scales else None, persistent=False)  # (2, 1, D)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, store: Store | None = None) -> Tensor:
        width = x.shape[-1:]
        joined = self.heads.forward(F.rms_norm(x, width, None, NORM_EPSILON)).view(*x.shape[:2], 3, -1, self.head_size)  # (B, T, 3, H, D)
        both = joined[:, :, :2].float()  # queries and keys
        if self.scales is not None:
            both = F.rms_norm(both, (self.head_size,), None, NORM_EPSILON) * self.scales
        query, key = rotate(both.permute(2, 0, 3, 1, 4), cos, sin)  # (B, H, T, D)
        value = joined[:, :, 2].transpose(1, 2)  # (B, H, T, D)
        key, value = store(key, value) if store else (key, value.float())
        causal = mask is None and query.shape[2] == key.shape[2]
        mixed = F.scaled_dot_product_attention(query.type_as(key), key, value, mask, 0.0, causal)  # (B, H, T, D)
        x = x + self.mixed.forward(mixed.transpose(1, 2).flatten(2))  # (B, T, C)
        gate, up = self.gates.forward(F.rms_norm(x, width, None, NORM_EPSILON)).chunk(2, dim=-1)
        return x + self.down.forward(F.silu(gate) * up)


def lighten(model: GPT, dtype: torch.dtype, int8: bool) -> GPT:
    """The model, changed in place for generating: matrices in `dtype` or in int8; what runs between them stays float32."""
    make = Int8Matrix if int8 else partial(Matrix, dtype=dtype)
    model.eval().requires_grad_(False)
    model.head = make(model.output_matrix)
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        model.blocks[index] = LightBlock(block, make)
    return model


def attention_dtype(model: GPT) -> torch.dtype:
    """The type in which attention to keys and values that are kept is fast: on a CPU float32, for one new id six times as fast as
    bfloat16 (measured); elsewhere the matrices' own."""
    dtype = model.output_matrix.dtype
    return torch.float32 if model.cos.device.type == "cpu" else dtype if dtype.is_floating_point else torch.bfloat16
