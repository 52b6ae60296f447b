"""Inference weights: almost the same logits with fused projections, bfloat16 and int8."""

import pytest
import torch

from sampling.engine import Engine, Request
from sampling.inference_weights import int8_matmul, prepare_for_inference
from sampling.sampler import SamplingParams
from tests.sampling.conftest import random_model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": False},
        {"n_embed": 20},
        {"n_head": 4, "n_kv_head": 2, "mlp_size": 100},
        {"n_head": 4, "n_kv_head": 1},
    ],
)
def test_lighter_weights_generate_almost_the_same(changes: dict[str, int | bool]) -> None:
    prompt = list(range(12))
    expected = random_model(**changes)(torch.tensor([prompt])).log_softmax(-1)
    size = torch.linalg.vector_norm(expected - expected.mean(-1, keepdim=True))
    for dtype, int8, tolerance in ((torch.float32, False, 1e-5), (torch.bfloat16, False, 0.03), (torch.bfloat16, True, 0.05)):
        light = prepare_for_inference(random_model(**changes), dtype, int8)
        found = light(torch.tensor([prompt])).log_softmax(-1)
        assert torch.linalg.vector_norm(found - expected) / size < tolerance
        few = light(torch.tensor([prompt[:3]])).log_softmax(-1)  # int8 has a kernel of its own for few ids
        assert torch.linalg.vector_norm(few - expected[:, :3]) / size < tolerance
        [event] = Engine(light).run([Request(prompt)], SamplingParams(1, temperature=0), frozenset())
        assert event.id == int(found[0, -1].argmax())


def test_int8_works_without_the_private_kernel_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 64, generator=generator).bfloat16()
    weight = torch.randint(-127, 128, (96, 64), generator=generator, dtype=torch.int8)
    scale = torch.rand(96, generator=generator).bfloat16()
    packed = int8_matmul(x, weight, scale)
    monkeypatch.delattr(torch, "_weight_int8pack_mm")
    dequantized = int8_matmul(x, weight, scale)
    assert packed.dtype == dequantized.dtype == torch.bfloat16
    torch.testing.assert_close(packed.float(), dequantized.float(), rtol=0.02, atol=0.5)
    torch.testing.assert_close(dequantized.float(), x.float() @ weight.float().T * scale.float(), rtol=0.02, atol=0.5)
