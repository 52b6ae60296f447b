"""The GPT, complete in one file: the architecture of Qwen3, or of Llama if config.qk_norm is off.

Shapes are given at the end of a line:
B batch, T time, C channels (n_embed), H heads, K heads of keys and values, D head size (C / H), V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

from config import IGNORE_INDEX, NORM_EPSILON, ModelConfig

CHUNK_ROWS = 4096  # rows of logits that exist at a time
CHUNK_ROWS_CPU = 512
QUERY_BLOCKS = 4  # of attention in compiled code on a CPU

# Adds the keys and values (B, K, T, D) of new tokens to a KV cache and returns those of all tokens so far.
CacheUpdate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
AttentionMask = Tensor | BlockMask  # dense (..., T, S), true where a token attends; or the same for FlexAttention


class _NormalizeRMS(torch.autograd.Function):
    """RMSNorm in float32, with few passes over memory in both directions: on a CPU PyTorch composes it of many."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / x.shape[-1]
        inverse = torch.rsqrt(mean_square + NORM_EPSILON)  # 1 / RMS, one for each row
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).mul_(weight).type_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, inverse = ctx.saved_tensors
        wide, grad = x.float(), grad.float()
        products = (grad * wide).flatten(0, -2)  # (rows, C)
        with torch.autocast(x.device.type, enabled=False):  # a compiled backward pass is under the autocast of its forward pass
            grad_weight = torch.mv(products.t(), inverse.flatten())
            along = torch.mv(products, weight).view_as(inverse) * inverse.square() / -x.shape[-1]
        return (grad * weight).addcmul_(wide, along).mul_(inverse).type_as(x), grad_weight


class RMSNorm(nn.Module):
    """RMSNorm that computes in float32 and returns the dtype of its input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _NormalizeRMS.apply(x, self.weight)  # type: ignore[no-untyped-call]  # torch's gap
        return y


class _CrossEntropy(torch.autograd.Function):
    """The sum of the cross-entropy of `x @ weight.T` against targets, a few rows at a time.

    The logits of all tokens would be the largest tensor of a step by far. Here they exist for CHUNK_ROWS of them only, and
    their gradients are computed at once, while they are in the cache: no product is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, needs_gradients: bool) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        matrix = weight[:vocab_size].to(dtype)  # (V, C) without the padding rows
        total = torch.zeros((), device=x.device)
        grad_x = torch.empty_like(x) if needs_gradients else x
        grad_weight = torch.zeros_like(weight) if needs_gradients else weight
        rows = CHUNK_ROWS_CPU if device == "cpu" else CHUNK_ROWS
        buffer = torch.empty(min(rows, len(x)), vocab_size, dtype=dtype, device=x.device)  # one for all: fresh memory costs page faults
        for start in range(0, len(x), rows):
            states, chosen = x[start : start + rows].to(dtype), targets[start : start + rows]  # (N, C), (N)
            counted = (chosen != IGNORE_INDEX).unsqueeze(1)  # (N, 1)
            chosen = chosen.clamp(min=0)
            logits = torch.mm(states, matrix.t(), out=buffer[: len(states)]).float()  # (N, V)
            largest, at_target = logits.amax(1, keepdim=True), logits.gather(1, chosen.unsqueeze(1))  # (N, 1) each
            exponentials = logits.sub_(largest).exp_()  # (N, V)
            sums = exponentials.sum(1, keepdim=True)  # (N, 1)
            total += ((largest + sums.log() - at_target) * counted).sum()
            if needs_gradients:
                # The gradient of a logit is its probability, less one at the target. Probabilities are exponentials over their
                # sum; dividing the small factors and results of the products instead saves a pass over all logits.
                scale, exponentials = counted / sums, exponentials.to(dtype)
                grad_x[start : start + rows] = (exponentials @ matrix).mul_(scale).sub_(matrix[chosen] * counted)
                grad_weight[:vocab_size] += exponentials.t() @ (states * scale).to(dtype)
                grad_weight.index_add_(0, chosen, (states * counted).float(), alpha=-1)
        ctx.save_for_backward(grad_x, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad, grad_weight * grad, None, None, None


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of position x channel of a head, for every position."""
    # Always on the CPU: the same numbers for every device, and actual numbers when the weights are made on "meta".
    halves = torch.arange(0, config.head_size, 2, dtype=torch.float32, device="cpu")
    frequencies = 1.0 / config.rope_theta ** (halves / config.head_size)  # (D/2)
    angles = torch.outer(torch.arange(config.block_size, dtype=torch.float32, device="cpu"), frequencies)  # (block_size, D/2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)  # (block_size, D) each


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of channels i and i + D/2 by the angle of its position. The pairing is Llama's."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)  # (B, H, T, D)


def segment_positions_and_mask(segment_ids: Tensor, in_blocks: bool = False) -> tuple[Tensor, AttentionMask]:
    """Position of each token in its segment (B, T), and the mask: a token attends to its own segment, up to itself.

    The mask is dense (B, 1, T, T); or in blocks for FlexAttention, which skips a block in which no token attends to another.
    """
    count, length = segment_ids.shape
    index = torch.arange(length, device=segment_ids.device)  # (T)
    begins = F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)  # (B, T)
    positions = index - torch.where(begins, index, 0).cummax(dim=1).values  # (B, T)

    def attends(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (segment_ids[row, query] == segment_ids[row, key]) & (query >= key)

    if in_blocks:
        return positions, create_block_mask(attends, count, None, length, length, segment_ids.device)
    mask = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (index[:, None] >= index)  # (B, T, T)
    return positions, mask.unsqueeze(1)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask | None, dropout: float) -> Tensor:
    """Softmax attention of the queries (B, H, T, D) to the keys and values (B, K, S, D); causal without a mask."""
    is_grouped = query.shape[1] != key.shape[1]
    if isinstance(mask, BlockMask):
        return flex_attention(query, key, value, block_mask=mask, enable_gqa=is_grouped)
    is_for_cpu = torch.compiler.is_compiling() and query.device.type == "cpu" and query.dtype == torch.bfloat16
    if is_for_cpu and query.shape == key.shape and query.shape[2] >= 64 * QUERY_BLOCKS and not dropout:
        return attend_in_blocks(query, key, value, mask)  # compiled, half the time of PyTorch's kernel (measured)
    causal = mask is None and query.shape[2] == key.shape[2]  # a single new token attends to all before it
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, causal, enable_gqa=is_grouped)


def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention (B, H, T, D) of one block of queries after the other, each to the keys up to its end."""
    mask = torch.arange(query.shape[2])[:, None] >= torch.arange(query.shape[2]) if mask is None else mask  # (T, T)
    mixed, end = [], 0
    for block in query.chunk(QUERY_BLOCKS, 2):  # (B, H, N, D)
        start, end = end, end + block.shape[2]
        scores = (block @ key[:, :, :end].mT).float() / math.sqrt(block.shape[3])  # (B, H, N, end)
        shares = torch.where(mask[..., start:end, :end], scores, -torch.inf).softmax(-1).type_as(value)
        mixed.append(shares @ value[:, :, :end])
    return torch.cat(mixed, 2)


class Attention(nn.Module):
    """Causal self-attention.

    Query, key and value have separate matrices, since Muon must orthogonalize them one by one and an export only renames
    them. One fused matrix was not faster (measured on a CPU).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.dropout = config.dropout
        self.query = nn.Linear(config.n_embed, config.n_embed, bias=False)
        self.key = nn.Linear(config.n_embed, config.kv_heads * config.head_size, bias=False)
        self.value = nn.Linear(config.n_embed, config.kv_heads * config.head_size, bias=False)
        self.output = nn.Linear(config.n_embed, config.n_embed, bias=False)
        self.query_norm = RMSNorm(config.head_size) if config.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(config.head_size) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: AttentionMask | None, update_cache: CacheUpdate | None = None) -> Tensor:
        heads = (*x.shape[:2], -1, self.head_size)
        query = self.query_norm(self.query(x).view(heads)).transpose(1, 2)  # (B, H, T, D)
        key = self.key_norm(self.key(x).view(heads)).transpose(1, 2)  # (B, K, T, D)
        value = self.value(x).view(heads).transpose(1, 2)  # (B, K, T, D)
        # The tables are float32: rotation happens in float32, and only its result is rounded.
        query, key = apply_rotary(query, cos, sin).type_as(value), apply_rotary(key, cos, sin).type_as(value)
        if update_cache is not None:
            key, value = update_cache(key, value)  # (B, K, S, D)
            query = query.type_as(key)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask, dropout)  # (B, H, T, D)
        y: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, C)
        return y


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.n_embed, config.mlp_width, bias=False)
        self.up = nn.Linear(config.n_embed, config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, config.n_embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))  # (B, T, C)
        return y


class Block(nn.Module):
    """Attention, then the MLP; each reads the normalized state and is added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.n_embed)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.n_embed)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: AttentionMask | None, update_cache: CacheUpdate | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), cos, sin, mask, update_cache))  # (B, T, C)
        change: Tensor = self.dropout(self.mlp(self.mlp_norm(x)))  # (B, T, C)
        return x + change


class GPT(nn.Module):
    """Token ids in; logits, or the loss against targets, out. Initial weights come from torch's global generator: seed it before."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False  # recompute each block in the backward pass to save memory
        self.embedding = nn.Embedding(config.padded_vocab_size, config.n_embed)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embed)
        # Any, not nn.Module | None, which would need a cast at every call; prepare_for_inference replaces it.
        self.head: Any = None if config.tie_embeddings else nn.Linear(config.n_embed, config.padded_vocab_size, bias=False)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                # The output of each branch starts at zero, so each block starts as the identity.
                is_output = name.endswith((".output", ".down"))
                nn.init.normal_(module.weight, std=0.0 if is_output else 1 / math.sqrt(module.in_features))
        # So the final state starts as the embedding of the current token, and a tied output matrix gives that token a logit of
        # std * C. With std 0.02 and C = 1024 that is 20: the loss would start at 20 instead of ln V = 9.
        nn.init.normal_(self.embedding.weight, std=min(0.02, 4 / self.config.n_embed))
        if self.head is not None:
            nn.init.normal_(self.output_matrix, std=0.1 / math.sqrt(self.config.n_embed))

    @property
    def output_matrix(self) -> Tensor:
        """The matrix that maps final states to logits, padding rows included."""
        weight: Tensor = self.embedding.weight if self.head is None else self.head.weight
        return weight  # (V padded, C)

    def forward(self, ids: Tensor, targets: Tensor | None = None, segment_ids: Tensor | None = None) -> Tensor:
        """Logits in float32 (B, T, V); or, with targets, the SUM of the cross-entropy in nats over the targets that are not IGNORE_INDEX.

        The caller divides the sum by the number of targets in the whole step, so that micro-batches add up exactly.
        `segment_ids` (B, T) mark several examples packed into one sequence: equal within an example, different between
        neighbours. Positions restart in each example, and no token attends to another example.
        """
        length = ids.shape[1]
        assert length <= self.config.block_size, f"{length} ids, but block_size is {self.config.block_size}"
        cos, sin, mask = self.cos[:length], self.sin[:length], None  # (T, D)
        if segment_ids is not None:
            positions, mask = segment_positions_and_mask(segment_ids, self._uses_flex_attention(ids.device))
            cos, sin = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)  # (B, 1, T, D)
        states = self.hidden_states(ids, cos, sin, mask)
        if targets is None:
            return self.logits(states)
        assert self.output_matrix.is_floating_point(), "int8 weights have logits only"
        states, gradients = states.flatten(0, 1), torch.is_grad_enabled()
        loss: Tensor = _CrossEntropy.apply(states, self.output_matrix, targets.flatten(), self.config.vocab_size, gradients)  # type: ignore[no-untyped-call]  # torch's gap
        return loss

    def _uses_flex_attention(self, device: torch.device) -> bool:
        """Whether a compiled kernel attends to packed examples block by block. Elsewhere a dense mask of all pairs of tokens is used."""
        is_compiled_for_gpu = device.type == "cuda" and torch.compiler.is_compiling()
        has_dropout = self.training and self.config.dropout > 0  # FlexAttention has none, and no heads of fewer than 16 channels
        return is_compiled_for_gpu and not has_dropout and self.config.head_size >= 16

    def hidden_states(
        self, ids: Tensor, cos: Tensor, sin: Tensor, mask: AttentionMask | None, cache_updates: Sequence[CacheUpdate] | None = None
    ) -> Tensor:
        """Final states (B, T, C) of the ids, rotated by these tables; with cache updates, one per block, they follow the cached tokens."""
        x = self.embedding(ids)  # (B, T, C)
        for index, block in enumerate(self.blocks):
            if self.checkpoint_activations and self.training:
                x = checkpoint(block, x, cos, sin, mask, use_reentrant=False)  # (B, T, C)
            else:
                x = block(x, cos, sin, mask, cache_updates[index] if cache_updates else None)  # (B, T, C)
        y: Tensor = self.norm(x)
        return y

    def logits(self, x: Tensor) -> Tensor:
        """Logits in float32 (B, T, V) of final states (B, T, C)."""
        logits: Tensor = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)  # with padding rows: it is faster
        return logits[..., : self.config.vocab_size].float()

    def count_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> float:
        """Floating-point operations to train on one token of a full context, forward and backward.

        As in PaLM (arXiv 2204.02311, appendix B): 6 for every weight that multiplies, and 12 n_layer C T for the two
        products of attention; half of that, since a token attends to half of the context on average.
        """
        weights = sum(weight.numel() for weight in self.blocks.parameters() if weight.dim() == 2) + self.output_matrix.numel()
        return 6.0 * weights + 6.0 * self.config.n_layer * self.config.n_embed * self.config.block_size
