"""Generation and scoring: the cache changes nothing, rows come and go, texts end where they should, seeds repeat."""

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from config import ModelConfig
from engine import Engine, Request, Sampling, choose
from lighter import lighten
from model import GPT

SHAPE = ModelConfig(n_layer=2, n_head=2, n_embed=16, block_size=24, vocab_size=400)
NOTHING: frozenset[int] = frozenset()


def make_model(**changes: bool) -> GPT:
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(SHAPE, **changes)).eval().requires_grad_(False)
    for parameter in model.parameters():  # weights that are zero at the start would make every id equally likely
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture(scope="module")
def model() -> GPT:
    return make_model()


def written(
    engine: Engine, requests: list[Request], sampling: Sampling, stop: frozenset[int] = NOTHING
) -> dict[tuple[int, int], list[int]]:
    """The ids of each sample of each request."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for event in engine.run(requests, sampling, stop):
        found[event.request, event.sample] += [] if event.id is None else [event.id]
    return found


def endings(engine: Engine, request: Request, sampling: Sampling, stop: frozenset[int] = NOTHING) -> list[str]:
    return [event.ending for event in engine.run([request], sampling, stop) if event.ending]


def uncached(model: GPT, prompt: list[int], count: int) -> list[int]:
    """The likeliest ids, with the whole model run anew for each."""
    ids = list(prompt)
    for _ in range(min(count, model.config.block_size - len(prompt))):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


PROMPTS = st.lists(st.lists(st.integers(0, 399), min_size=1, max_size=23), min_size=1, max_size=9)


@given(PROMPTS, st.integers(1, 4), st.integers(1, 30), st.sampled_from([{}, {"qk_norm": False}, {"tie_embeddings": False}]))
def test_greedy_is_the_uncached_models_alone_and_in_a_batch(
    prompts: list[list[int]], rows: int, count: int, changes: dict[str, bool]
) -> None:
    model = make_model(**changes)
    found = written(Engine(model, rows), [Request(prompt) for prompt in prompts], Sampling(count, temperature=0))
    assert [found[index, 0] for index in range(len(prompts))] == [uncached(model, prompt, count) for prompt in prompts]


@given(PROMPTS, st.integers(1, 5), st.integers(0, 3))
def test_a_sample_does_not_depend_on_what_is_written_beside_it(prompts: list[list[int]], rows: int, seed: int) -> None:
    model, sampling = make_model(), Sampling(6, temperature=1.5, seed=seed)
    requests = [Request(prompt, samples=1 + index % 3) for index, prompt in enumerate(prompts)]
    stop = frozenset(range(0, 400, 7))
    assert written(Engine(model, rows), requests, sampling, stop) == written(Engine(model, 1), requests, sampling, stop)


def test_samples_of_a_prompt_differ_and_a_seed_repeats(model: GPT) -> None:
    engine = Engine(model, rows=3)
    first, again, other = (written(engine, [Request([5, 6], samples=5)], Sampling(8, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({tuple(ids) for ids in first.values()}) == 5


def test_texts_end_where_they_should_and_say_so(model: GPT) -> None:
    engine = Engine(model)
    greedy = uncached(model, [5, 6], 24)
    assert len(greedy) == 22
    assert endings(engine, Request([5, 6]), Sampling(100, temperature=0)) == ["context"]
    assert endings(engine, Request([5, 6]), Sampling(3, temperature=0)) == ["tokens"]
    assert endings(engine, Request([5, 6]), Sampling(100, temperature=0), frozenset(greedy[1:2])) == ["stop"]
    assert written(engine, [Request([5, 6])], Sampling(9, temperature=0), frozenset(greedy[1:2]))[0, 0] == greedy[: greedy.index(greedy[1])]
    for prompt, count, ending in (([5] * 24, 5, "context"), ([5] * 23, 5, "context"), ([5], 0, "tokens")):
        assert endings(engine, Request(prompt), Sampling(count)) == [ending]
        assert len(written(engine, [Request(prompt)], Sampling(count))[0, 0]) == (1 if len(prompt) == 23 else 0)


def test_only_what_is_allowed_comes_first(model: GPT) -> None:
    allowed = torch.zeros(400, dtype=torch.bool)
    allowed[[3, 9]] = True
    found = written(Engine(model, 4), [Request([1, 2], 20, allowed)], Sampling(2))
    assert {ids[0] for ids in found.values()} == {3, 9}
    assert not {ids[1] for ids in found.values()} <= {3, 9}


def test_log_probabilities_are_the_models(model: GPT) -> None:
    events = list(Engine(model, 2).run([Request([5, 6]), Request([7])], Sampling(4, temperature=0.3, top_k=2), NOTHING))
    for number, prompt in enumerate(([5, 6], [7])):
        mine = [event for event in events if event.request == number]
        ids = [event.id for event in mine if event.id is not None]
        truth = model(torch.tensor([prompt + ids]))[0].log_softmax(-1)
        expected = [float(truth[len(prompt) - 1 + place, id]) for place, id in enumerate(ids)]
        assert [event.logprob for event in mine] == pytest.approx(expected, abs=1e-4)


def draws(logits: torch.Tensor, sampling: Sampling, count: int = 4000) -> NDArray[np.float64]:
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0))
    return np.bincount(choose(logits.expand(count, -1), sampling, uniform).numpy(), minlength=len(logits)) / count


def test_ids_come_as_often_as_they_should() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    assert draws(logits, Sampling(1)).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    squares = np.array([0.01, 0.04, 0.09, 0.16])
    assert draws(logits, Sampling(1, temperature=0.5)).tolist() == pytest.approx((squares / squares.sum()).tolist(), abs=0.03)
    assert draws(logits, Sampling(1, top_k=2)).tolist() == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.03)
    assert draws(logits, Sampling(1, top_k=99)).tolist() == draws(logits, Sampling(1, top_k=4)).tolist()
    assert draws(logits, Sampling(1, top_p=0.65)).tolist() == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.03)
    assert draws(logits, Sampling(1, top_p=0.75)).tolist() == pytest.approx([0, 2 / 9, 3 / 9, 4 / 9], abs=0.03)
    assert draws(logits, Sampling(1, min_p=0.6)).tolist() == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.03)
    assert draws(logits, Sampling(1, top_p=1e-9)).tolist() == [0, 0, 0, 1]
    assert draws(logits, Sampling(1, temperature=0)).tolist() == [0, 0, 0, 1]
    assert draws(logits, Sampling(1, temperature=1e-6)).tolist() == [0, 0, 0, 1]
    assert draws(logits, Sampling(1, temperature=1e6)).tolist() == pytest.approx([0.25] * 4, abs=0.03)


@example([0.0, 0.0], 0, 1.0, 0.0, 1.0)  # nothing cut off, and the largest chance
@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=20),
    st.integers(0, 25),
    st.floats(0.001, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 1e-7, 0.999999, 1.0]),
)
def test_a_forbidden_id_never_comes(values: list[float], top_k: int, top_p: float, min_p: float, uniform: float) -> None:
    logits = torch.tensor([[*values, -torch.inf]])
    sampling = Sampling(1, top_k=top_k, top_p=top_p, min_p=min_p)
    assert int(choose(logits, sampling, torch.tensor([uniform]))) < len(values)


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}])
def test_fewer_bits_write_almost_the_same(changes: dict[str, bool]) -> None:
    prompt = list(range(12))
    truth = make_model(**changes)(torch.tensor([prompt])).log_softmax(-1)
    size = torch.linalg.vector_norm(truth - truth.mean(-1, keepdim=True))
    for dtype, int8, tolerance in ((torch.float32, False, 1e-5), (torch.bfloat16, False, 0.03), (torch.bfloat16, True, 0.05)):
        light = lighten(make_model(**changes), dtype, int8)
        found = light(torch.tensor([prompt])).log_softmax(-1)
        assert torch.linalg.vector_norm(found - truth) / size < tolerance
        few = light(torch.tensor([prompt[:3]])).log_softmax(-1)  # int8 has another product for few ids
        assert torch.linalg.vector_norm(few - truth[:, :3]) / size < tolerance
        [event] = Engine(light).run([Request(prompt)], Sampling(1, temperature=0), NOTHING)
        assert event.id == int(found[0, -1].argmax())
