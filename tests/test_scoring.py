"""Log-probabilities of given ids: as a plain pass over the model gives them, however they are packed, shared or batched."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config import ModelConfig
from errors import UserError
from lighter import lighten
from model import GPT
from scoring import Scorer

SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=16, block_size=24, vocab_size=11)
IDS = st.integers(0, SHAPE.vocab_size - 1)
SEQUENCES = st.lists(st.tuples(st.lists(IDS, min_size=1, max_size=12), st.lists(IDS, min_size=1, max_size=12)), max_size=12)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(SHAPE).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def plainly(model: GPT, prompt: list[int], continuation: list[int]) -> list[float]:
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + continuation[:-1]]))[0].log_softmax(-1)
    return [float(logprobs[len(prompt) - 1 + place, id]) for place, id in enumerate(continuation)]


@given(SEQUENCES, st.integers(1, 5))
def test_packed_is_as_alone(model: GPT, sequences: list[tuple[list[int], list[int]]], rows: int) -> None:
    found = list(Scorer(model, rows).score(sequences))
    assert len(found) == len(sequences)
    for (prompt, continuation), scores in zip(sequences, found, strict=True):
        assert scores.tolist() == pytest.approx(plainly(model, prompt, continuation), abs=1e-4)


@settings(max_examples=50)
@given(st.lists(IDS, min_size=1, max_size=12), st.lists(st.lists(IDS, min_size=1, max_size=12), max_size=30))
def test_after_a_shared_prompt_is_as_alone(model: GPT, prompt: list[int], continuations: list[list[int]]) -> None:
    found = Scorer(model, 2).score_after(prompt, continuations)
    assert len(found) == len(continuations)
    for continuation, scores in zip(continuations, found, strict=True):
        assert scores.tolist() == pytest.approx(plainly(model, prompt, continuation), abs=1e-4)


def test_more_than_is_read_at_a_time(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.SCORED_IDS", 7)
    monkeypatch.setattr("scoring.LOGIT_IDS", 5)
    generator = np.random.default_rng(0)
    continuations = [generator.integers(0, 11, size=generator.integers(1, 13)).tolist() for _ in range(40)]
    for continuation, scores in zip(continuations, Scorer(model, 2).score_after([1, 2, 3], continuations), strict=True):
        assert scores.tolist() == pytest.approx(plainly(model, [1, 2, 3], continuation), abs=1e-4)


def test_all_continuations_together_are_certain(model: GPT) -> None:
    every = [list(ids) for ids in itertools.product(range(SHAPE.vocab_size), repeat=3)]
    for prompt in ([4], [1, 2, 3, 4, 5]):
        assert sum(np.exp(scores.sum()) for scores in Scorer(model, 3).score_after(prompt, every)) == pytest.approx(1, abs=1e-4)
        assert sum(np.exp(scores.sum()) for scores in Scorer(model, 3).score([(prompt, ids) for ids in every])) == pytest.approx(
            1, abs=1e-4
        )


def test_a_light_model_is_scored_the_same(model: GPT) -> None:
    light = GPT(SHAPE)
    light.load_state_dict(model.state_dict())
    scorer = Scorer(lighten(light, torch.float32, int8=False), 2)
    assert next(scorer.score([([3, 1], [4, 1, 5])])).tolist() == pytest.approx(plainly(model, [3, 1], [4, 1, 5]), abs=1e-4)
    [scores] = scorer.score_after([3, 1], [[4, 1, 5]])
    assert scores.tolist() == pytest.approx(plainly(model, [3, 1], [4, 1, 5]), abs=1e-4)


def test_a_model_that_knows_no_numbers_is_refused(model: GPT) -> None:
    broken = GPT(SHAPE)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.norm.weight[3] = torch.nan
    with pytest.raises(UserError, match=r"no number.*--dtype float32"):
        Scorer(broken, 2).score_after([3, 1], [[4, 1, 5]])
    with pytest.raises(UserError, match="no number"):
        Scorer(broken, 2).score([([3, 1], [4, 1, 5])])
