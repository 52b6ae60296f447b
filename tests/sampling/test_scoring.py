"""Scores are the log-probabilities of a plain pass over the model, however sequences are packed, shared or batched."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import GPT
from sampling.inference_weights import prepare_for_inference
from sampling.scoring import Scorer
from system.errors import UserError
from tests.sampling.conftest import random_model

VOCAB_SIZE = 11
IDS = st.integers(0, VOCAB_SIZE - 1)
SEQUENCES = st.lists(st.tuples(st.lists(IDS, min_size=1, max_size=12), st.lists(IDS, min_size=1, max_size=12)), max_size=12)


@pytest.fixture(scope="module")
def model() -> GPT:
    return random_model(vocab_size=VOCAB_SIZE)


def plain_scores(model: GPT, prompt: list[int], continuation: list[int]) -> list[float]:
    """The scores by one pass over the prompt and its continuation alone."""
    logprobs = model(torch.tensor([prompt + continuation[:-1]]))[0].log_softmax(-1)
    return [float(logprobs[len(prompt) - 1 + position, id]) for position, id in enumerate(continuation)]


@given(SEQUENCES, st.integers(1, 5))
def test_packing_changes_no_score(model: GPT, sequences: list[tuple[list[int], list[int]]], batch_size: int) -> None:
    found = list(Scorer(model, batch_size).score(sequences))
    assert len(found) == len(sequences)
    for (prompt, continuation), scores in zip(sequences, found, strict=True):
        assert scores.tolist() == pytest.approx(plain_scores(model, prompt, continuation), abs=1e-4)


@settings(max_examples=50)
@given(st.lists(IDS, min_size=1, max_size=12), st.lists(st.lists(IDS, min_size=1, max_size=12), max_size=30))
def test_a_shared_prompt_changes_no_score(model: GPT, prompt: list[int], continuations: list[list[int]]) -> None:
    found = Scorer(model, 2).score_after(prompt, continuations)
    assert len(found) == len(continuations)
    for continuation, scores in zip(continuations, found, strict=True):
        assert scores.tolist() == pytest.approx(plain_scores(model, prompt, continuation), abs=1e-4)


def test_many_continuations_are_split_into_batches(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampling.scoring.BATCH_TOKENS", 7)
    monkeypatch.setattr("sampling.scoring.LOGITS_TOKENS", 5)
    generator = np.random.default_rng(0)
    continuations = [generator.integers(0, 11, size=generator.integers(1, 13)).tolist() for _ in range(40)]
    for continuation, scores in zip(continuations, Scorer(model, 2).score_after([1, 2, 3], continuations), strict=True):
        assert scores.tolist() == pytest.approx(plain_scores(model, [1, 2, 3], continuation), abs=1e-4)


def test_the_probabilities_of_all_continuations_add_up_to_one(model: GPT) -> None:
    continuations = [list(ids) for ids in itertools.product(range(VOCAB_SIZE), repeat=3)]
    for prompt in ([4], [1, 2, 3, 4, 5]):
        assert sum(np.exp(scores.sum()) for scores in Scorer(model, 3).score_after(prompt, continuations)) == pytest.approx(1, abs=1e-4)
        assert sum(np.exp(scores.sum()) for scores in Scorer(model, 3).score([(prompt, ids) for ids in continuations])) == pytest.approx(
            1, abs=1e-4
        )


def test_inference_weights_give_the_same_scores(model: GPT) -> None:
    scorer = Scorer(prepare_for_inference(random_model(vocab_size=VOCAB_SIZE), torch.float32, int8=False), 2)
    assert next(scorer.score([([3, 1], [4, 1, 5])])).tolist() == pytest.approx(plain_scores(model, [3, 1], [4, 1, 5]), abs=1e-4)
    [scores] = scorer.score_after([3, 1], [[4, 1, 5]])
    assert scores.tolist() == pytest.approx(plain_scores(model, [3, 1], [4, 1, 5]), abs=1e-4)


def test_scores_that_are_not_finite_are_refused() -> None:
    broken = random_model(vocab_size=VOCAB_SIZE)
    broken.norm.weight[3] = torch.nan
    with pytest.raises(UserError, match=r"not finite.*--dtype float32"):
        Scorer(broken, 2).score_after([3, 1], [[4, 1, 5]])
    with pytest.raises(UserError, match="not finite"):
        Scorer(broken, 2).score([([3, 1], [4, 1, 5])])
