"""Inference weights: fused projections in bfloat16 or int8. The time for a token is the time to read the weights from memory."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import NORM_EPSILON
from model import GPT, Block, CacheUpdate, RMSNorm, apply_rotary, attend

PACKED_ROWS = 8  # up to this many, the int8 kernel is bound by memory; above, by its arithmetic
PACKED_INPUTS = 16  # the kernel reads so many inputs at a time, also past the end of a row


def int8_matmul(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """The product of x (N, C) with an int8 matrix (V, C) and a scale for each of its rows (V).

    torch._weight_int8pack_mm is private, but reads each weight as one byte, where a public operation would read a bfloat16 copy: one
    text is generated 1.4 times as fast (measured). Without it, in another release of torch, few rows are computed like many: the
    same product with dequantized weights.
    """
    if len(x) <= PACKED_ROWS and x.shape[1] % PACKED_INPUTS == 0 and hasattr(torch, "_weight_int8pack_mm"):
        return torch._weight_int8pack_mm(x, weight, scale)
    return F.linear(x, weight.to(torch.bfloat16)) * scale


class CastLinear(nn.Module):
    """A linear layer that rounds its input to the number type of its weight."""

    weight: Tensor

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", weight.to(dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight)


class Int8Linear(nn.Module):
    """A linear layer with int8 weights from -127 to 127 and a scale for each output; it computes in bfloat16."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        scale = (weight.float().abs().amax(dim=1) / 127).clamp(min=1e-12).bfloat16()
        self.register_buffer("weight", (weight.float() / scale[:, None].float()).round().clamp(-127, 127).to(torch.int8), persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return int8_matmul(x.to(torch.bfloat16).flatten(0, -2), self.weight, self.scale).view(*x.shape[:-1], -1)


class InferenceBlock(nn.Module):
    """A block with four matrices instead of seven: with one id at a time, each call costs.

    The weights of the norms are multiplied into the matrices after them. Layers are run by `forward`, which is faster than a call.
    """

    scales: Tensor | None

    def __init__(self, block: Block, make_linear: Callable[[Tensor], "CastLinear | Int8Linear"]) -> None:
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.head_size = attention.head_size
        qkv = torch.cat([attention.query.weight, attention.key.weight, attention.value.weight])
        self.qkv = make_linear(qkv * block.attention_norm.weight)
        self.output = make_linear(attention.output.weight)
        self.gate_up = make_linear(torch.cat([mlp.gate.weight, mlp.up.weight]) * block.mlp_norm.weight)
        self.down = make_linear(mlp.down.weight)
        scales: list[Tensor] = [norm.weight for norm in (attention.query_norm, attention.key_norm) if isinstance(norm, RMSNorm)]
        self._heads = attention.query.out_features // self.head_size, attention.key.out_features // self.head_size
        by_head = [scale.expand(heads, -1) for scale, heads in zip(scales, self._heads, strict=False)]
        self.register_buffer("scales", torch.cat(by_head) if scales else None, persistent=False)  # (H + K, D)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, store: CacheUpdate | None = None) -> Tensor:
        width = x.shape[-1:]
        heads, kv_heads = self._heads
        qkv = self.qkv.forward(F.rms_norm(x, width, None, NORM_EPSILON)).view(*x.shape[:2], -1, self.head_size)  # (B, T, H + 2 K, D)
        query_key = qkv[:, :, : heads + kv_heads].float()  # (B, T, H + K, D)
        if self.scales is not None:
            query_key = F.rms_norm(query_key, (self.head_size,), None, NORM_EPSILON) * self.scales
        rotated = apply_rotary(query_key.transpose(1, 2), cos, sin)  # (B, H + K, T, D)
        query, key = rotated[:, :heads], rotated[:, heads:]
        value = qkv[:, :, heads + kv_heads :].transpose(1, 2)  # (B, K, T, D)
        key, value = store(key, value) if store else (key, value.float())
        mixed = attend(query.type_as(key), key, value, mask, 0.0)  # (B, H, T, D)
        x = x + self.output.forward(mixed.transpose(1, 2).flatten(2))  # (B, T, C)
        gate, up = self.gate_up.forward(F.rms_norm(x, width, None, NORM_EPSILON)).chunk(2, dim=-1)
        return x + self.down.forward(F.silu(gate) * up)


def prepare_for_inference(model: GPT, dtype: torch.dtype, int8: bool) -> GPT:
    """Change the model in place for inference: matrices in `dtype` or int8. Everything between the matrices stays float32."""
    make_linear = Int8Linear if int8 else partial(CastLinear, dtype=dtype)
    model.eval().requires_grad_(False)
    model.head = make_linear(model.output_matrix)
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        model.blocks[index] = InferenceBlock(block, make_linear)
    return model


def attention_dtype(model: GPT) -> torch.dtype:
    """The number type in which attention to cached keys and values is fast: on a CPU float32, for one new id six times as fast as
    bfloat16 (measured); on other devices the type of the matrices."""
    dtype = model.output_matrix.dtype
    return torch.float32 if model.cos.device.type == "cpu" else dtype if dtype.is_floating_point else torch.bfloat16
