"""The KV cache: prefill and decode give the logits of a full pass, in any slot."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import GPT
from sampling.kv_cache import KVCache
from tests.sampling.conftest import random_model


@pytest.fixture(scope="module", params=[None, 2, 1])
def model(request: pytest.FixtureRequest) -> GPT:
    """With keys and values for each head, for every two, and for all four."""
    return random_model(n_head=4, n_kv_head=request.param)


def full_pass(model: GPT, sequences: list[list[int]]) -> Tensor:
    """The logits after each sequence (B, V)."""
    return torch.stack([model(torch.tensor([ids]))[0, -1] for ids in sequences])


@torch.inference_mode()
def test_logits_are_those_of_a_full_pass(model: GPT) -> None:
    cache = KVCache(model, 4)
    prompts = [[5, 6], [7, 8, 9], [7, 8, 9]]
    torch.testing.assert_close(cache.prefill([5, 6]), full_pass(model, [[5, 6]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(cache.prefill([7, 8, 9], copies=2), full_pass(model, prompts[1:]), atol=1e-4, rtol=0)
    assert cache.lengths == [2, 3, 3]
    first, second = [1, 2, 3], [4, 5, 6]
    for count, ids in enumerate((first, second), start=1):
        generated = list(zip(first, second, strict=True))
        sequences = [prompt + list(pair[:count]) for prompt, pair in zip(prompts, generated, strict=True)]
        torch.testing.assert_close(cache.decode(ids), full_pass(model, sequences), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_sequences_of_one_length_are_decoded_alike(model: GPT) -> None:
    cache = KVCache(model, 2)
    cache.prefill([5, 6])
    cache.prefill([7, 8])
    torch.testing.assert_close(cache.decode([1, 2]), full_pass(model, [[5, 6, 1], [7, 8, 2]]), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_last_sequence_moves_into_a_freed_slot(model: GPT) -> None:
    cache = KVCache(model, 3)
    for prompt in ([1], [2, 3, 4], [5, 6]):
        cache.prefill(prompt)
    cache.free(0)
    assert cache.lengths == [2, 3]
    torch.testing.assert_close(cache.decode([8, 9]), full_pass(model, [[5, 6, 8], [2, 3, 4, 9]]), atol=1e-4, rtol=0)
    cache.free(1)
    assert cache.lengths == [3]
    cache.prefill([7, 7])
    torch.testing.assert_close(cache.decode([1, 2]), full_pass(model, [[5, 6, 8, 1], [7, 7, 2]]), atol=1e-4, rtol=0)
    cache.clear()
    assert cache.lengths == []


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of the process is read the way of Linux")
def test_a_short_text_takes_memory_for_its_length_not_for_the_context() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    model = random_model(n_layer=1, n_head=8, n_embed=512, block_size=8192)
    before = resident_bytes()
    with torch.inference_mode():
        cache = KVCache(model, 8)  # 268 MB in all
        cache.prefill([1, 2, 3], copies=8)
        cache.decode([4] * 8)
    assert resident_bytes() - before < 50e6
