"""Owns the yardstick: a plain GPT with the architecture and the training step of nanoGPT (Andrej Karpathy), and nothing clever.

LayerNorm and matrices without biases, one matrix for query, key and value, learned positions, a GELU MLP of four times the width,
the embedding as output matrix, the cross-entropy of all logits at once. A step is AdamW on clipped gradients.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import ModelConfig
from system.device import autocast, send

WEIGHT_DECAY, BETAS, LEARNING_RATE, CLIP = 0.1, (0.9, 0.95), 6e-4, 1.0  # nanoGPT's


class LayerNorm(nn.Module):
    """LayerNorm without a bias, which PyTorch had no module for."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class CausalSelfAttention(nn.Module):
    """Attention with one matrix for query, key and value."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embed, 3 * config.n_embed, bias=False)
        self.c_proj = nn.Linear(config.n_embed, config.n_embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        query, key, value = (part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2))
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (B, H, T, D)
        projected: Tensor = self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))
        return projected


class MLP(nn.Module):
    """Two matrices around a GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embed, 4 * config.n_embed, bias=False)
        self.c_proj = nn.Linear(4 * config.n_embed, config.n_embed, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return y


class Block(nn.Module):
    """Attention, then the MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embed)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = LayerNorm(config.n_embed)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        mixed: Tensor = x + self.mlp(self.ln_2(x))
        return mixed


class ReferenceGPT(nn.Module):
    """Token ids in; the logits of the last one, or the mean loss against targets, out. Its vocabulary is padded to the same multiple of 64
    as ours."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.padded_vocab_size, config.n_embed)
        self.wpe = nn.Embedding(config.block_size, config.n_embed)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embed)
        self.lm_head = nn.Linear(config.n_embed, config.padded_vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith("c_proj.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layer) if deep else 0.02)

    def states(self, ids: Tensor) -> Tensor:
        """The final states (B, T, C)."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))  # (B, T, C)
        for block in self.h:
            x = block(x)
        y: Tensor = self.ln_f(x)
        return y

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        if targets is None:
            last: Tensor = self.lm_head(self.states(ids)[:, -1])  # (B, V)
            return last
        logits = self.lm_head(self.states(ids))  # (B, T, V)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1), ignore_index=-1)


class ReferenceStepper:
    """nanoGPT's training step. AdamW is fused, on a CPU too, where nanoGPT itself loops over the parameters: we compare models."""

    def __init__(
        self, model: ReferenceGPT, device: torch.device, dtype: torch.dtype, micro_batch: int, mark: Callable[[str], None]
    ) -> None:
        self.model = model
        self.micro_batch = micro_batch
        self._compiled: Callable[[Tensor, Tensor], Tensor] = torch.compile(model)
        self._device, self._dtype = device, dtype
        self._mark = mark
        parameters = list(model.parameters())
        groups = [
            {"params": [parameter for parameter in parameters if parameter.dim() >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
        ]
        fused = device.type in ("cuda", "cpu")
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=fused or None)
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step(self, inputs: Tensor, targets: Tensor, compiled: bool) -> Tensor:
        """One step on a batch that is on the CPU; returns its loss, which is on the device, as nanoGPT reads it on log lines only."""
        forward = self._compiled if compiled else self.model
        total = torch.zeros((), device=self._device)
        for start in range(0, len(inputs), self.micro_batch):
            self._mark("data")
            part = [send(tensor[start : start + self.micro_batch], self._device) for tensor in (inputs, targets)]
            self._mark("forward")
            with autocast(self._device, self._dtype):
                loss = forward(*part) * (len(part[0]) / len(inputs))
            self._mark("backward")
            self._scaler.scale(loss).backward()
            total += loss.detach()
        self._mark("optimizer")
        self._scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def halve_micro_batch(self) -> None:
        """After memory ran out."""
        self.optimizer.zero_grad(set_to_none=True)
        self.micro_batch = math.ceil(self.micro_batch / 2)
        torch.cuda.empty_cache()
        torch.compiler.reset()  # or the new shape would be compiled with dynamic sizes
