"""What runs on a GPU only. Without one that PyTorch can use, every test is skipped and says so."""

import dataclasses
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from config import ModelConfig
from model import GPT

DEVICE = torch.device("cuda")
SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=64, block_size=256, vocab_size=400)


@pytest.fixture(scope="session", autouse=True)
def needs_a_gpu() -> None:
    """Of its scope the first fixture, so that no data is made for tests that are skipped."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that PyTorch can use")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No test finds the compiled code, the limit of memory or the settings of the one before."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture
def leave_memory() -> Callable[[int], None]:
    """Leaves this process only so many more bytes of the GPU's memory."""

    def leave(size: int) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved() + size
        torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(DEVICE).total_memory)

    return leave


def random_model(device: torch.device = DEVICE, **changes: Any) -> GPT:
    """A model as training might leave it: no weight is 0 or 1, so every weight has an effect. The same weights on every device."""
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(SHAPE, **changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.2)
    return model.to(device)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The length of the difference, as a share of the length of what is expected."""
    return float(torch.linalg.vector_norm(found.double() - expected.double()) / torch.linalg.vector_norm(expected.double()))


def assert_gradients_are_near(found: GPT, expected: GPT, tolerance: float) -> None:
    """The gradients of two models with the same parameters differ by no more than this share."""
    for (name, ours), theirs in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None, name
        assert relative_error(ours.grad, theirs.grad) < tolerance, name
