"""The yardstick is nanoGPT's architecture and step: its parameters, its causality, its loss, its micro-batches."""

import copy
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarking.yardstick import ReferenceGPT, ReferenceStepper
from config import ModelConfig
from system.device import send
from tests.reads import CountReads

SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=16, block_size=12, vocab_size=128)


def make_model(shape: ModelConfig = SHAPE) -> ReferenceGPT:
    torch.manual_seed(0)
    return ReferenceGPT(shape)


def random_ids(rows: int, seed: int) -> Tensor:
    return torch.randint(SHAPE.vocab_size, (rows, SHAPE.block_size), generator=torch.Generator().manual_seed(seed))


def stepper(model: ReferenceGPT, micro_batch: int, marks: list[str] | None = None) -> ReferenceStepper:
    return ReferenceStepper(model, torch.device("cpu"), torch.float32, micro_batch, (marks if marks is not None else []).append)


def test_parameters_are_those_of_gpt2() -> None:
    """GPT-2's count without biases: 12 C^2 + 2 C in a block, the embeddings of ids and positions, a last LayerNorm."""
    for n_layer, C, T, V in ((2, 16, 12, 128), (3, 64, 20, 8888)):
        model = make_model(ModelConfig(n_layer=n_layer, n_head=2, n_embed=C, block_size=T, vocab_size=V))
        padded = V if V == 128 else 8896
        assert sum(parameter.numel() for parameter in model.parameters()) == padded * C + T * C + n_layer * (12 * C * C + 2 * C) + C


def test_no_token_sees_a_later_one() -> None:
    model, ids = make_model(), random_ids(1, 1)
    before = model.states(ids)
    for position in range(SHAPE.block_size):
        changed = ids.clone()
        changed[0, position] = (ids[0, position] + 1) % SHAPE.vocab_size
        after = model.states(changed)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.equal(after[:, position], before[:, position])


def test_the_loss_is_the_mean_cross_entropy_of_all_logits() -> None:
    model, ids, targets = make_model(), random_ids(3, 1), random_ids(3, 2)
    logits = model.states(ids) @ model.wte.weight.T
    assert model(ids, targets).item() == pytest.approx(F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item())
    assert torch.allclose(model(ids), logits[:, -1], atol=1e-5)


def test_micro_batches_add_up_to_the_batch() -> None:
    whole = make_model()
    parts = copy.deepcopy(whole)
    inputs, targets = random_ids(5, 1), random_ids(5, 2)
    losses = [stepper(model, size).step(inputs, targets, compiled=False) for model, size in ((whole, 5), (parts, 2))]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-4)


def test_steps_learn_and_mark_their_phases() -> None:
    marks: list[str] = []
    training = stepper(make_model(), 4, marks)
    inputs, targets = random_ids(4, 1), random_ids(4, 2)
    losses = [float(training.step(inputs, targets, compiled=False)) for _ in range(20)]
    assert losses[-1] < losses[0] - 0.1
    assert marks == ["data", "forward", "backward", "optimizer"] * 20
    training.halve_micro_batch()
    assert training.micro_batch == 2


def test_a_step_does_not_wait_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nanoGPT's: batches are sent from pinned memory, and no value is read."""
    sent = mock.Mock(wraps=send)
    monkeypatch.setattr("benchmarking.yardstick.send", sent)
    training, inputs, targets = stepper(make_model(), 2), random_ids(4, 1), random_ids(4, 2)
    with CountReads(monkeypatch) as reads:
        training.step(inputs, targets, compiled=False)
    assert reads.count == 0
    assert [call.args[0].tolist() for call in sent.call_args_list] == [
        ids[start : start + 2].tolist() for start in (0, 2) for ids in (inputs, targets)
    ]
