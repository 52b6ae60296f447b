"""The GPT, complete in one file: the shape of Qwen3, or of Llama where config.qk_norm is off.

Shapes stand at the end of the lines:
B batch, T time, C channels (n_embed), H heads, D head size (C / H), V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config import IGNORE, ModelConfig

NORM_EPSILON = 1e-6

# Takes the keys and values (B, H, T, D) of new ids and gives those of all ids so far: how an engine keeps what it has computed.
Store = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class RMSNorm(nn.RMSNorm):
    """RMSNorm that computes in float32 and answers in the type it was asked in."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        # Input and weight of one type, or PyTorch leaves its fused kernel: under autocast the weight stays float32.
        return F.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps).type_as(x)


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position x frequency, for every position and every pair of channels in a head."""
    # On the CPU by name: the same numbers for every device, and real ones when the weights are made on "meta".
    halves = torch.arange(0, config.head_size, 2, dtype=torch.float32, device="cpu")
    frequencies = 1.0 / config.rope_theta ** (halves / config.head_size)  # (D/2)
    angles = torch.outer(torch.arange(config.block_size, dtype=torch.float32, device="cpu"), frequencies)  # (block_size, D/2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel i and channel i + D/2 as one pair by the angle of their position. The pairing is Llama's."""
    first, second = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)  # (B, H, T, D)


def part_rows(examples: Tensor) -> tuple[Tensor, Tensor]:
    """Each id's position in its own example (B, T), and which ids it may look at (B, 1, T, T): those before it in that example."""
    index = torch.arange(examples.shape[1], device=examples.device)  # (T)
    begins = F.pad(examples[:, 1:] != examples[:, :-1], (1, 0), value=True)  # (B, T)
    positions = index - torch.where(begins, index, 0).cummax(dim=1).values  # (B, T)
    mask = (examples[:, :, None] == examples[:, None, :]) & (index[:, None] >= index)  # (B, T, T)
    return positions, mask.unsqueeze(1)


class Attention(nn.Module):
    """Causal self-attention. Three separate matrices, not one: Muon must orthogonalise query, key and value apart,
    and an export only renames them. One fused matrix was not faster (measured on a CPU)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.dropout = config.dropout
        self.query = nn.Linear(config.n_embed, config.n_embed, bias=False)
        self.key = nn.Linear(config.n_embed, config.n_embed, bias=False)
        self.value = nn.Linear(config.n_embed, config.n_embed, bias=False)
        self.output = nn.Linear(config.n_embed, config.n_embed, bias=False)
        self.query_norm = RMSNorm(config.head_size) if config.qk_norm else nn.Identity()
        self.key_norm = RMSNorm(config.head_size) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, store: Store | None = None) -> Tensor:
        heads = (*x.shape[:2], -1, self.head_size)
        query = self.query_norm(self.query(x).view(heads)).transpose(1, 2)  # (B, H, T, D)
        key = self.key_norm(self.key(x).view(heads)).transpose(1, 2)  # (B, H, T, D)
        value = self.value(x).view(heads).transpose(1, 2)  # (B, H, T, D)
        # The tables are float32, so positions are applied in float32 and only their result is rounded.
        query, key = rotate(query, cos, sin).type_as(value), rotate(key, cos, sin).type_as(value)
        if store is not None:
            key, value = store(key, value)  # (B, H, S, D)
            query = query.type_as(key)
        dropout = self.dropout if self.training else 0.0
        causal = mask is None and query.shape[2] == key.shape[2]  # a single new id sees all that came before it
        mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout, causal)  # (B, H, T, D)
        y: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, C)
        return y


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.n_embed, config.mlp_size, bias=False)
        self.up = nn.Linear(config.n_embed, config.mlp_size, bias=False)
        self.down = nn.Linear(config.mlp_size, config.n_embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))  # (B, T, C)
        return y


class Block(nn.Module):
    """Attention, then the MLP, each on the normalised state and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.n_embed)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.n_embed)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, store: Store | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), cos, sin, mask, store))  # (B, T, C)
        change: Tensor = self.dropout(self.mlp(self.mlp_norm(x)))  # (B, T, C)
        return x + change


class GPT(nn.Module):
    """Token ids in; logits, or the loss against targets, out. The weights depend on torch's global generator: seed it once before."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False  # compute each block twice in training and store less
        self.embedding = nn.Embedding(config.padded_vocab_size, config.n_embed)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.n_embed)
        # Any: a module that lighter.py may exchange; declared nn.Module | None, every call of it would want a cast.
        self.head: Any = None if config.tie_embeddings else nn.Linear(config.n_embed, config.padded_vocab_size, bias=False)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                # What leaves a branch starts at zero: each block begins as the identity.
                leaves = name.endswith((".output", ".down"))
                nn.init.normal_(module.weight, std=0.0 if leaves else 1 / math.sqrt(module.in_features))
        # So the last state starts as the embedding of the id just read, and a tied output matrix gives that same id a logit of
        # std * C. At 0.02 and 1024 wide this is 20: the model would bet on repeating itself, at a loss of 20 instead of ln V = 9.
        nn.init.normal_(self.embedding.weight, std=min(0.02, 4 / self.config.n_embed))
        if self.head is not None:
            nn.init.normal_(self.output_matrix, std=0.1 / math.sqrt(self.config.n_embed))

    @property
    def output_matrix(self) -> Tensor:
        """The matrix that turns the last state into logits, padding rows included."""
        weight: Tensor = self.embedding.weight if self.head is None else self.head.weight
        return weight  # (V padded, C)

    def forward(self, ids: Tensor, targets: Tensor | None = None, examples: Tensor | None = None) -> Tensor:
        """Logits in float32 (B, T, V); or, with targets, the SUM of the cross-entropy in nats over the targets that are not IGNORE.

        The caller divides the sum by the number of targets in the whole step, so that micro-batches add up exactly.
        With `examples` (B, T), equal for the ids of one example and different for neighbours, a row holds several
        examples: positions start anew in each, and no id sees into another.
        """
        length = ids.shape[1]
        assert length <= self.config.block_size, f"{length} ids, but block_size is {self.config.block_size}"
        cos, sin, mask = self.cos[:length], self.sin[:length], None  # (T, D/2)
        if examples is not None:
            positions, mask = part_rows(examples)
            cos, sin = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)  # (B, 1, T, D/2)
        logits = self.logits(self.states(ids, cos, sin, mask))
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")

    def states(self, ids: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, stores: Sequence[Store] | None = None) -> Tensor:
        """What the blocks make of the ids at the positions of these tables (B, T, C); with a store for each block, beside what is in it."""
        x = self.embedding(ids)  # (B, T, C)
        twice = self.checkpoint_activations and self.training
        for index, block in enumerate(self.blocks):
            if twice:
                x = checkpoint(block, x, cos, sin, mask, use_reentrant=False)  # (B, T, C)
            else:
                x = block(x, cos, sin, mask, stores[index] if stores else None)  # (B, T, C)
        y: Tensor = self.norm(x)
        return y

    def logits(self, x: Tensor) -> Tensor:
        """In float32 (B, T, V), of states (B, T, C)."""
        # The product with whole 64s of rows is the fast one; what the padding rows say is cut off here, for good.
        logits: Tensor = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        return logits[..., : self.config.vocab_size].float()

    def count_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> float:
        """Floating-point operations that training on one token of a full context takes, forward and backward.

        As in PaLM (arXiv 2204.02311, appendix B): 6 for every weight that multiplies, and 12 n_layer C T for the two
        products of attention; half of the latter, because a causal token sees half of the context on average.
        """
        weights = sum(weight.numel() for weight in self.blocks.parameters() if weight.dim() == 2) + self.output_matrix.numel()
        return 6.0 * weights + 6.0 * self.config.n_layer * self.config.n_embed * self.config.block_size
