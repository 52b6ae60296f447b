"""The two parts of the model with gradients written by hand equal what PyTorch composes: RMSNorm and the cross-entropy in chunks."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import model
from config import IGNORE_INDEX, NORM_EPSILON, ModelConfig
from model import GPT, RMSNorm


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float().requires_grad_()


def head(width: int, vocab_size: int) -> GPT:
    """A model whose loss is that of its output matrix alone: without blocks, and with a final norm that changes nothing."""
    gpt = GPT(ModelConfig(n_layer=1, n_head=1, n_embed=width, block_size=4096, vocab_size=vocab_size))
    gpt.blocks = torch.nn.ModuleList()
    gpt.norm = torch.nn.Identity()  # type: ignore[assignment]
    torch.nn.init.normal_(gpt.embedding.weight)
    return gpt


@pytest.mark.parametrize("shape", [(3, 5, 8), (7, 32), (2, 3, 4, 16)])
def test_rms_norm_and_its_gradients_equal_those_of_pytorch(shape: tuple[int, ...]) -> None:
    x, other, norm = leaf(*shape), leaf(*shape), RMSNorm(shape[-1])
    norm.weight.data.normal_()
    weight = norm.weight.detach().clone().requires_grad_()
    upstream = leaf(*shape, seed=1).detach()
    norm(x).backward(upstream)
    expected = F.rms_norm(other, shape[-1:], weight, NORM_EPSILON)
    torch.autograd.backward(expected, upstream)
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(norm.weight.grad, weight.grad)


def test_rms_norm_of_a_transposed_input_has_the_same_gradients() -> None:
    x, norm = leaf(6, 4, 8), RMSNorm(8)
    upstream = leaf(4, 6, 8, seed=1).detach()
    norm(x.transpose(0, 1)).backward(upstream)
    copied = x.detach().transpose(0, 1).contiguous().requires_grad_()
    norm(copied).backward(upstream)
    assert x.grad is not None and copied.grad is not None
    torch.testing.assert_close(x.grad.transpose(0, 1), copied.grad)


def test_rms_norm_of_zeros_is_zero_and_has_finite_gradients() -> None:
    x, norm = torch.zeros(2, 8, requires_grad=True), RMSNorm(8)
    norm(x).sum().backward()
    assert x.grad is not None and norm.weight.grad is not None
    assert not norm(x).any() and x.grad.isfinite().all() and norm.weight.grad.isfinite().all()


@given(
    rows=st.integers(1, 40),
    chunk=st.integers(1, 17),
    vocab_size=st.integers(2, 70),
    ignored=st.sets(st.integers(0, 39)),
    size=st.sampled_from([1.0, 30.0]),
)
@settings(max_examples=60)
def test_the_loss_and_its_gradients_equal_those_of_pytorch(rows: int, chunk: int, vocab_size: int, ignored: set[int], size: float) -> None:
    gpt = head(8, vocab_size)
    gpt.embedding.weight.data *= size  # 30: probabilities that are exactly 0 and 1
    generator = torch.Generator().manual_seed(rows)
    ids, targets = (torch.randint(vocab_size, (1, rows), generator=generator) for _ in range(2))
    targets[0, [index for index in ignored if index < rows]] = IGNORE_INDEX
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "CHUNK_ROWS_CPU", chunk)
        loss = gpt(ids, targets)
    (3 * loss).backward()
    found, gpt.embedding.weight.grad = gpt.embedding.weight.grad, None
    logits = gpt(ids)
    expected = F.cross_entropy(logits[0], targets[0], ignore_index=IGNORE_INDEX, reduction="sum")
    torch.autograd.backward(3 * expected)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, gpt.embedding.weight.grad, rtol=1e-4, atol=1e-4 * size)


def test_logits_exist_for_a_chunk_of_the_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    product = torch.mm

    def counting(left: Tensor, right: Tensor, **options: Tensor) -> Tensor:
        result = product(left, right, **options)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(torch, "mm", counting)
    gpt = head(8, 3000)
    ids = torch.arange(4 * model.CHUNK_ROWS_CPU).remainder(3000).unsqueeze(0)
    gpt(ids, ids).backward()
    assert sizes == [model.CHUNK_ROWS_CPU * 3000] * 4


def test_without_gradients_the_loss_is_the_same_and_computes_none() -> None:
    gpt = head(8, 50)
    ids = torch.arange(50).unsqueeze(0)
    with torch.no_grad():
        loss = gpt(ids, ids)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, gpt(ids, ids).detach())


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 0.02), (torch.float16, 0.005)])
def test_under_autocast_the_gradients_are_nearly_those_of_float32(dtype: torch.dtype, limit: float) -> None:
    gradients: list[Tensor] = []
    gpt = head(32, 200)
    ids = torch.arange(200).unsqueeze(0)
    for enabled in (True, False):
        with torch.autocast("cpu", dtype, enabled=enabled):
            [gradient] = torch.autograd.grad(gpt(ids, ids.flip(1)), [gpt.embedding.weight])
        assert gradient.dtype == torch.float32
        gradients.append(gradient)
    low, full = gradients
    assert not torch.equal(low, full), "autocast had no effect"
    assert (low - full).norm() < limit * full.norm()


@pytest.mark.long
def test_a_compiled_model_has_the_same_loss_and_gradients() -> None:
    config = ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=16, vocab_size=50)
    torch.manual_seed(0)
    gpt = GPT(config)
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ids = torch.arange(32).view(2, 16)
    found = []
    for compiled in (False, True):
        if compiled:
            gpt.compile(dynamic=False)
        gpt.zero_grad()
        loss = gpt(ids, ids.flip(1))
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in gpt.parameters())])
    for eager, fast in itertools.zip_longest(*found):
        torch.testing.assert_close(fast, eager, rtol=1e-3, atol=1e-4)
