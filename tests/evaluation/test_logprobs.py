"""Log-probabilities, against models small enough to compute by hand."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import ModelConfig
from evaluation.logprobs import document_logprobs, instruction_logprobs, sliding_windows
from model import GPT
from sampling.scoring import Scorer
from training.examples import Example

SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=16, block_size=12, vocab_size=9)
DOCUMENTS = [np.random.default_rng(number).integers(0, 9, size=size).tolist() for number, size in enumerate((2, 5, 13, 14, 40, 3, 27))]


@pytest.fixture(scope="module")
def bigram_model() -> GPT:
    """A model at initialization, whose blocks add nothing: it sees only the last token."""
    torch.manual_seed(1)
    model = GPT(SHAPE)
    torch.nn.init.normal_(model.embedding.weight)
    return model


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model that uses its whole context."""
    torch.manual_seed(2)
    model = GPT(SHAPE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return model


def bigram_logprobs(model: GPT) -> torch.Tensor:
    """Log P of each id after each id, under a bigram model."""
    weights = model.embedding.weight[: SHAPE.vocab_size]
    return (torch.nn.functional.rms_norm(weights, weights.shape[-1:]) @ weights.T).log_softmax(-1).detach()


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 12))
def test_every_id_is_predicted_once_with_the_context_that_the_stride_leaves(length: int, block_size: int, stride: int) -> None:
    stride = min(stride, block_size)
    position = 1
    for context, predicted in sliding_windows(list(range(length)), block_size, stride):
        assert predicted == list(range(position, position + len(predicted)))
        assert context == list(range(position - len(context), position))
        assert len(context) + len(predicted) - 1 <= block_size
        assert len(context) >= min(position, block_size - stride + 1)
        position += len(predicted)
    assert position == length


@pytest.mark.parametrize("stride", [1, 5, 12])
def test_documents_by_hand(bigram_model: GPT, stride: int) -> None:
    table = bigram_logprobs(bigram_model)
    found = list(document_logprobs(Scorer(bigram_model, 2), iter(DOCUMENTS), stride))
    for ids, logprobs in zip(DOCUMENTS, found, strict=True):
        assert logprobs.tolist() == pytest.approx([float(table[one, other]) for one, other in itertools.pairwise(ids)], abs=1e-4)


def test_stride_1_predicts_each_id_from_a_full_context(model: GPT) -> None:
    [ids] = [ids for ids in DOCUMENTS if len(ids) == 40]
    [logprobs] = document_logprobs(Scorer(model, 3), [ids], 1)
    for position, logprob in enumerate(logprobs, start=1):
        context = ids[max(0, position - SHAPE.block_size) : position]
        assert logprob == pytest.approx(float(model(torch.tensor([context])).detach()[0, -1].log_softmax(-1)[ids[position]]), abs=1e-4)


def test_the_loss_does_not_depend_on_the_batch_size(model: GPT) -> None:
    sums = [sum(float(part.sum()) for part in document_logprobs(Scorer(model, size), DOCUMENTS * 30, 4)) for size in (1, 3, 16, 400)]
    tokens = 30 * sum(len(ids) - 1 for ids in DOCUMENTS)
    assert max(sums) / tokens == pytest.approx(min(sums) / tokens, abs=1e-5)


def examples(responses: list[list[int]], instruction: list[int]) -> list[Example]:
    return [Example(np.array([1, *response, 2, *instruction]), 2 + len(response)) for response in responses]


def test_instructions_by_hand(bigram_model: GPT, model: GPT) -> None:
    responses, instruction = [[3, 4, 5], [6], []], [7, 8, 0]
    table = bigram_logprobs(bigram_model)
    ignoring = list(instruction_logprobs(Scorer(bigram_model, 2), examples(responses, instruction)))
    assert ignoring == pytest.approx([float(table[2, 7] + table[7, 8] + table[8, 0])] * 3, abs=1e-4)
    reading = list(instruction_logprobs(Scorer(model, 2), examples(responses, instruction)))
    assert len({round(value, 2) for value in reading}) == 3
