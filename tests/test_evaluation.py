"""Metrics against values computed by hand, on models small enough for that."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import IGNORE, ModelConfig
from evaluation import document_logprobs, instruction_logprobs, measure_loss, spans
from model import GPT
from packing import Example
from scoring import Scorer
from shards import Rows


class FixedGuess(GPT):
    """Gives id 1 a half and shares the other half among the seven others, whatever it reads."""

    def forward(self, ids: torch.Tensor, targets: torch.Tensor | None = None, examples: torch.Tensor | None = None) -> torch.Tensor:
        assert targets is not None
        nats = torch.where(targets == 1, math.log(2), math.log(14))
        return nats[targets != IGNORE].sum()


@pytest.fixture
def model() -> GPT:
    return FixedGuess(ModelConfig(n_layer=1, n_head=1, n_embed=8, block_size=4, vocab_size=8))


def test_loss_and_bits_per_byte_by_hand(model: GPT) -> None:
    rows = Rows(np.zeros((2, 4), np.int64), np.array([[1, 2, 1, IGNORE], [3, IGNORE, IGNORE, IGNORE]]))
    bytes_per_id = np.array([0, 3, 1, 2, 1, 1, 1, 1])
    loss = measure_loss(model, [rows], bytes_per_id, torch.float32)
    nats = 2 * math.log(2) + 2 * math.log(14)
    assert loss.nats_per_token == pytest.approx(nats / 4)
    assert loss.bits_per_byte == pytest.approx(nats / math.log(2) / (3 + 1 + 3 + 2))


def test_batches_add_up(model: GPT) -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(-1, 8, size=(9, 4))
    rows = Rows(np.zeros_like(targets), targets)
    bytes_per_id = np.arange(8)
    whole = measure_loss(model, [rows], bytes_per_id, torch.float32)
    parts = measure_loss(model, [rows[0:2], rows[2:3], rows[3:9]], bytes_per_id, torch.float32)
    assert parts == pytest.approx(whole)


def test_dropout_is_off_while_measuring() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=1, n_head=1, n_embed=8, block_size=4, vocab_size=8, dropout=0.5)).train()
    torch.nn.init.normal_(model.blocks[0].mlp.down.weight)  # type: ignore[union-attr, arg-type]  # a block
    rows = Rows(np.ones((2, 4), np.int64), np.ones((2, 4), np.int64))
    assert len({measure_loss(model, [rows], np.ones(8, np.int64), torch.float32) for _ in range(3)}) == 1


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 12))
def test_every_id_is_foretold_once_with_what_the_stride_leaves_it(length: int, block_size: int, stride: int) -> None:
    stride = min(stride, block_size)
    place = 1
    for prompt, continuation in spans(list(range(length)), block_size, stride):
        assert continuation == list(range(place, place + len(continuation)))
        assert prompt == list(range(place - len(prompt), place))
        assert len(prompt) + len(continuation) - 1 <= block_size
        assert len(prompt) >= min(place, block_size - stride + 1)
        place += len(continuation)
    assert place == length


SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=16, block_size=12, vocab_size=9)


def bigrams(model: GPT) -> torch.Tensor:
    """What a model whose blocks add nothing gives for each id after each: it sees the last id alone."""
    weights = model.embedding.weight[: SHAPE.vocab_size]
    return (torch.nn.functional.rms_norm(weights, weights.shape[-1:]) @ weights.T).log_softmax(-1).detach()


@pytest.fixture(scope="module")
def forgetful() -> GPT:
    """A model as it begins: what leaves its blocks is zero."""
    torch.manual_seed(1)
    model = GPT(SHAPE)
    torch.nn.init.normal_(model.embedding.weight)
    return model


@pytest.fixture(scope="module")
def attentive() -> GPT:
    torch.manual_seed(2)
    model = GPT(SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return model


DOCUMENTS = [np.random.default_rng(number).integers(0, 9, size=size).tolist() for number, size in enumerate((2, 5, 13, 14, 40, 3, 27))]


@pytest.mark.parametrize("stride", [1, 5, 12])
def test_documents_by_hand(forgetful: GPT, stride: int) -> None:
    table = bigrams(forgetful)
    found = list(document_logprobs(Scorer(forgetful, 2), iter(DOCUMENTS), stride))
    for ids, logprobs in zip(DOCUMENTS, found, strict=True):
        assert logprobs.tolist() == pytest.approx([float(table[one, other]) for one, other in itertools.pairwise(ids)], abs=1e-4)


def test_documents_with_the_context_that_the_stride_leaves(attentive: GPT) -> None:
    [ids] = [ids for ids in DOCUMENTS if len(ids) == 40]
    [one_by_one] = document_logprobs(Scorer(attentive, 3), [ids], 1)
    for place, logprob in enumerate(one_by_one, start=1):
        read = ids[max(0, place - SHAPE.block_size) : place]
        assert logprob == pytest.approx(float(attentive(torch.tensor([read])).detach()[0, -1].log_softmax(-1)[ids[place]]), abs=1e-4)


def test_the_loss_does_not_depend_on_the_batch(attentive: GPT) -> None:
    sums = [sum(float(part.sum()) for part in document_logprobs(Scorer(attentive, rows), DOCUMENTS * 30, 4)) for rows in (1, 3, 16, 400)]
    tokens = 30 * sum(len(ids) - 1 for ids in DOCUMENTS)
    assert max(sums) / tokens == pytest.approx(min(sums) / tokens, abs=1e-5)


def examples(responses: list[list[int]], instruction: list[int]) -> list[Example]:
    return [Example(np.array([1, *response, 2, *instruction]), 2 + len(response)) for response in responses]


def test_a_model_that_ignores_the_response_finds_all_alike(forgetful: GPT, attentive: GPT) -> None:
    given_responses, instruction = [[3, 4, 5], [6], []], [7, 8, 0]
    table = bigrams(forgetful)
    alike = list(instruction_logprobs(Scorer(forgetful, 2), examples(given_responses, instruction)))
    assert alike == pytest.approx([float(table[2, 7] + table[7, 8] + table[8, 0])] * 3, abs=1e-4)
    different = list(instruction_logprobs(Scorer(attentive, 2), examples(given_responses, instruction)))
    assert len({round(value, 2) for value in different}) == 3
