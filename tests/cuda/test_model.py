"""The model on a GPU: the loss in chunks, packed examples, and compiled code give what plain PyTorch gives."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters

from config import IGNORE_INDEX
from formats.batches import PADDING
from model import CHUNK_ROWS, GPT
from system.device import autocast
from tests.cuda.conftest import DEVICE, SHAPE, assert_gradients_are_near, random_model, relative_error

# Shares by which gradients may differ: of sums in another order, and of numbers with 8 or 11 bits.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
DTYPES = list(TOLERANCE)


def some_ids(rows: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and targets; some targets do not count."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(SHAPE.vocab_size, (rows, SHAPE.block_size + 1), generator=generator)
    targets = ids[:, 1:].clone()
    targets[:, :20] = IGNORE_INDEX
    return ids[:, :-1].to(DEVICE), targets.to(DEVICE)


def segments(lengths: list[int]) -> Tensor:
    """Segment ids (1, T) of examples of these lengths, one after the other, and padding."""
    ids = [number for number, length in enumerate(lengths) for _ in range(length)]
    return torch.tensor([ids + [PADDING] * (SHAPE.block_size - len(ids))], device=DEVICE)


def backward(model: GPT, dtype: torch.dtype, *batch: Tensor) -> float:
    """The mean loss of a batch, with its gradients."""
    model.train().zero_grad()
    with autocast(DEVICE, dtype):
        loss: Tensor = model(*batch) / batch[1].numel()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
    return loss.item()


def test_logits_are_those_of_a_cpu() -> None:
    ids, _ = some_ids()
    with torch.no_grad():
        expected = random_model(torch.device("cpu"))(ids.cpu())
        assert relative_error(random_model()(ids).cpu(), expected) < 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_in_chunks_is_that_of_pytorch(dtype: torch.dtype) -> None:
    """In three chunks, the last of them smaller."""
    batch = some_ids(rows=2 * CHUNK_ROWS // SHAPE.block_size + 1)
    model = random_model()
    reference = copy.deepcopy(model)
    loss = backward(model, dtype, *batch)
    with autocast(DEVICE, dtype):
        logits = reference(batch[0])
        expected = F.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), ignore_index=IGNORE_INDEX, reduction="sum") / batch[1].numel()
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss == pytest.approx(expected.item(), rel=TOLERANCE[dtype] / 10)
    assert_gradients_are_near(model, reference, TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("lengths", "checkpoint_activations", "dtype"),
    [
        (None, False, torch.bfloat16),
        (None, True, torch.float32),
        ([100, 1, 60, 30], False, torch.bfloat16),
        ([100, 1, 60, 30], True, torch.float32),
        ([100, 1, 60, 30], True, torch.float16),
    ],
)
def test_compiled_code_computes_the_loss_and_gradients_of_eager_mode(
    lengths: list[int] | None, checkpoint_activations: bool, dtype: torch.dtype
) -> None:
    """Packed examples are attended to by FlexAttention when compiled, and through a dense mask in eager mode."""
    batch = list(some_ids())
    if lengths is not None:
        batch.append(torch.cat([segments(lengths), segments(lengths[::-1]), segments([7] * 30), segments([256])]))
    compiled, eager = random_model(), random_model()
    compiled.checkpoint_activations = checkpoint_activations
    compiled.compile(dynamic=False, fullgraph=True)
    assert backward(compiled, dtype, *batch) == pytest.approx(backward(eager, dtype, *batch), rel=TOLERANCE[dtype] / 10)
    assert_gradients_are_near(compiled, eager, TOLERANCE[dtype])


@pytest.mark.parametrize("is_compiled", [False, True])
def test_packed_examples_have_the_loss_of_single_ones(is_compiled: bool) -> None:
    (inputs, targets), lengths = some_ids(rows=1, seed=3), [100, 1, 60, 30]
    targets[:, sum(lengths) :] = IGNORE_INDEX
    model = random_model().eval()
    with torch.no_grad():
        alone, start = 0.0, 0
        for length in lengths:
            own = slice(start, start := start + length)
            alone += float(model(inputs[:, own], targets[:, own]))
        if is_compiled:
            model.compile(dynamic=False, fullgraph=True)
        assert float(model(inputs, targets, segments(lengths))) == pytest.approx(alone, rel=1e-4)


def test_packed_examples_of_a_real_shape() -> None:
    """Heads of 64 channels and full batches: FlexAttention chooses its kernels by such sizes. Evaluated, then trained on."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(SHAPE.vocab_size, (32, 513), generator=generator).to(DEVICE)
    ends = torch.rand(32, 512, generator=generator) < 1 / 100
    batch = [ids[:, :-1], ids[:, 1:].contiguous(), ends.cumsum(1).to(DEVICE)]
    compiled, eager = (random_model(n_head=5, n_embed=320, block_size=512) for _ in range(2))
    compiled.compile(dynamic=False)
    for model in (compiled, eager):
        model.eval()
    with torch.no_grad(), autocast(DEVICE, torch.bfloat16):
        assert float(compiled(*batch)) == pytest.approx(float(eager(*batch)), rel=0.01)
    assert backward(compiled, torch.bfloat16, *batch) == pytest.approx(backward(eager, torch.bfloat16, *batch), rel=0.01)
    assert_gradients_are_near(compiled, eager, TOLERANCE[torch.bfloat16])


def test_compiled_packed_examples_use_flex_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, which it has not, the dense mask stays."""
    answers: list[bool] = []
    decide: Callable[[GPT, torch.device], bool] = GPT._uses_flex_attention

    def recorded(model: GPT, device: torch.device) -> bool:
        answers.append(decide(model, device))
        return answers[-1]

    monkeypatch.setattr(GPT, "_uses_flex_attention", recorded)
    for dropout in (0.0, 0.1):
        model = random_model(dropout=dropout)
        model.compile(dynamic=False)
        backward(model, torch.bfloat16, *some_ids(1), segments([100, 50]))
    assert answers == [True, False]


def test_other_examples_are_not_compiled_again() -> None:
    model = random_model()
    model.compile(dynamic=False)
    backward(model, torch.bfloat16, *some_ids(2), torch.cat([segments([100, 50]), segments([3] * 20)]))
    graphs = counters["stats"]["unique_graphs"]
    for seed in range(3):
        lengths = torch.randint(1, 40, (2, 6), generator=torch.Generator().manual_seed(seed)).tolist()
        backward(model, torch.bfloat16, *some_ids(2, seed), torch.cat([segments(row) for row in lengths]))
    assert counters["stats"]["unique_graphs"] == graphs
