"""Attention block by block, which compiled code on a CPU uses: the results of PyTorch's kernel."""

import shutil
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import model
from model import QUERY_BLOCKS, attend, attend_in_blocks, segment_positions_and_mask


@given(length=st.integers(1, 40), is_packed=st.booleans(), seed=st.integers(0, 1 << 20))
def test_blocks_give_the_results_and_gradients_of_the_kernel(length: int, is_packed: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = inputs = torch.randn(3, 2, 3, length, 8, generator=generator).requires_grad_().unbind()
    segment_ids = torch.randint(3, (2, length), generator=generator).sort(1).values
    mask = segment_positions_and_mask(segment_ids)[1] if is_packed else None
    assert mask is None or isinstance(mask, torch.Tensor)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=not is_packed)
    found = attend_in_blocks(query, key, value, mask)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=generator)
    for mine, theirs in zip(*(torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"dtype": torch.float32}, {"length": 255}, {"keys": 257}, {"heads": 1}, {"dropout": 0.1}], ids=str)
def test_only_compiled_code_in_bfloat16_attends_in_blocks(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And only where a block has enough queries, and nothing is asked of it that it does not do."""
    settings: dict[str, Any] = {"dtype": torch.bfloat16, "length": 64 * QUERY_BLOCKS, "keys": 0, "heads": 2, "dropout": 0.0} | changes
    query = torch.zeros(1, 2, settings["length"], 8, dtype=settings["dtype"])
    key = torch.zeros(1, settings["heads"], settings["keys"] or settings["length"], 8, dtype=settings["dtype"])
    in_blocks = Mock(return_value=query)
    monkeypatch.setattr(model, "attend_in_blocks", in_blocks)
    for is_compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda there=is_compiling: there)
        attend(query, key, key, None, settings["dropout"])
        assert in_blocks.called == (is_compiling and not changes)


@pytest.mark.long
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("is_packed", [False, True])
def test_compiled_blocks_agree_with_the_kernel(is_packed: bool) -> None:
    torch.manual_seed(0)
    query, key, value = inputs = torch.randn(3, 2, 2, 300, 16).bfloat16().requires_grad_().unbind()
    mask = segment_positions_and_mask((torch.arange(300) // 110).expand(2, 300))[1] if is_packed else None
    weights, results = torch.randn(2, 2, 300, 16), []
    for function in (attend, torch.compile(attend, dynamic=False)):
        found = function(query, key, value, mask, 0.0)
        results.append((found, *torch.autograd.grad((found * weights).sum(), inputs)))
    for compiled, eager in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(compiled, eager, atol=0.05, rtol=0.05)
    assert not torch.equal(results[1][0], results[0][0])  # it was another computation
