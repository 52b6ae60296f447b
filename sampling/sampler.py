"""Choosing token ids from logits: temperature, top-k, top-p and min-p, with a random generator for each sample."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config import SamplerConfig

NOT_FINITE = "the model gives probabilities that are not finite: it is damaged, or too large for --dtype. Try --dtype float32"


@dataclass(frozen=True)
class SamplingParams:
    """How many tokens to generate, and how to choose each from the model's distribution."""

    max_new_tokens: int
    temperature: float = 1.0  # 0: always the most likely token
    top_k: int = 0  # only this many of the most likely tokens; 0: all
    top_p: float = 1.0  # only the most likely tokens that together have this probability; 1: all
    min_p: float = 0.0  # only tokens with at least this share of the highest probability; 0: all
    seed: int = 0  # a sample depends on it, its request and its index, and not on the rest of the batch


def sampling_params(config: SamplerConfig) -> SamplingParams:
    """The settings as the engine takes them; without a seed, a new random one."""
    seed = int.from_bytes(os.urandom(8), "big") >> 1 if config.seed is None else config.seed
    return SamplingParams(config.max_new_tokens, config.temperature, config.top_k, config.top_p, config.min_p, seed)


def choose_tokens(logits: Tensor, params: SamplingParams, uniform: Tensor) -> Tensor:
    """Choose an id from each of the logits (B, V) with a uniform random number for each (B).

    It computes where the logits are and reads none of them.
    """
    if params.temperature == 0:
        return logits.argmax(dim=-1)
    # In float64: a small temperature makes large numbers, and sums over thousands of ids, which a GPU may add in any order, are
    # compared with `uniform`.
    scaled = logits.double()
    scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / params.temperature
    count = scaled.shape[-1]
    is_limited = params.top_p < 1 or 0 < params.top_k < count
    ids = None
    if is_limited:
        scaled, ids = scaled.topk(params.top_k if 0 < params.top_k < count else count, dim=-1)  # most likely first
    probabilities = scaled.softmax(dim=-1)
    keep = (probabilities > 0) & (probabilities >= params.min_p * probabilities.amax(dim=-1, keepdim=True))
    if params.top_p < 1:
        keep &= probabilities.cumsum(dim=-1) - probabilities < params.top_p
        keep[:, 0] = True
    sums = (probabilities * keep).cumsum(dim=-1)
    index = torch.searchsorted(sums, uniform.double()[:, None] * sums[:, -1:], right=True).clamp(max=scaled.shape[-1] - 1)
    index = torch.where(keep.gather(1, index), index, keep.long().argmax(dim=-1, keepdim=True))
    return (index if ids is None else ids.gather(1, index))[:, 0]


def sample_generator(seed: int, request: int, sample: int) -> torch.Generator:
    """The random generator of one sample."""
    state = np.random.SeedSequence([seed, request, sample]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
