"""The products of a bound are those of the model, no more and no fewer: their floating-point operations are counted."""

from collections.abc import Callable
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarking.products import TrainingProducts, inference_bytes, inference_model, inference_products, random_model
from config import ModelConfig
from sampling.engine import Engine, Request
from sampling.sampler import SamplingParams
from sampling.scoring import Scorer

CPU = torch.device("cpu")
SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=16, vocab_size=320)  # a multiple of 64: no padding rows


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products in this work, without those of attention, which are inside a kernel on a CPU."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def count_attentions(work: Callable[[], object]) -> int:
    """How often this work calls the kernel of attention."""
    with mock.patch("torch.nn.functional.scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as kernel:
        work()
    return kernel.call_count


@pytest.mark.parametrize("tied", [True, False])
def test_training_products_are_those_of_a_step(tied: bool) -> None:
    config = ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=16, vocab_size=320, tie_embeddings=tied)
    model = random_model(config, CPU).train().requires_grad_()
    ids = torch.randint(config.vocab_size, (3, config.block_size))
    products = TrainingProducts(model, 3, CPU, torch.float32)

    def step() -> None:
        model(ids, ids).backward()

    attention = 6 * config.n_layer * config.n_embed * config.block_size
    assert count_flops(products) == count_flops(step) == 3 * config.block_size * (model.flops_per_token() - attention)
    assert count_attentions(products) == count_attentions(step) == config.n_layer


def test_inference_products_are_those_of_generating() -> None:
    model = inference_model(SHAPE, torch.float32, False, CPU)
    engine, tokens, texts = Engine(model, 3), 4, 3
    run = lambda: list(engine.run([Request([1, 2, 3, 4, 5], texts)], SamplingParams(tokens), frozenset()))  # noqa: E731
    prefill, decode = inference_products(model, 5, 1), inference_products(model, texts, texts)
    expected = count_flops(prefill) + (tokens - 1) * count_flops(decode)
    assert count_flops(run) == expected


def test_inference_products_are_those_of_scoring() -> None:
    model = inference_model(SHAPE, torch.float32, False, CPU)
    prompt, candidates = [1, 2, 3], [[1, 2, 3, 4]] * 5
    expected = count_flops(lambda: Scorer(model, 16).score_after(prompt, candidates))
    assert count_flops(inference_products(model, 3 + 5 * 3, 5 * 4)) == expected
    assert count_flops(inference_products(model, 3 + 5 * 3, 5 * 4, rows_at_once=7)) == expected


@pytest.mark.parametrize(("dtype", "int8", "width"), [(torch.float32, False, 4), (torch.bfloat16, False, 2), (torch.bfloat16, True, 1)])
def test_the_bytes_of_a_token_are_all_matrices(dtype: torch.dtype, int8: bool, width: int) -> None:
    model = inference_model(SHAPE, dtype, int8, CPU)
    C, M = SHAPE.n_embed, SHAPE.mlp_width
    assert inference_bytes(model) == width * (SHAPE.n_layer * (4 * C * C + 3 * C * M) + SHAPE.vocab_size * C)
    inference_products(model, 1, 1)()
