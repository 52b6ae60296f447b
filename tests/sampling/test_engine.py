"""The engine: neither the cache nor the batch changes what is generated, and every text ends where it should."""

from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import GPT
from sampling.engine import Engine, Request
from sampling.kv_cache import KVCache
from sampling.sampler import SamplingParams
from system.errors import UserError
from tests.reads import CountReads
from tests.sampling.conftest import random_model

NO_STOP_IDS: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def model() -> GPT:
    return random_model()


def generate(
    engine: Engine, requests: list[Request], params: SamplingParams, stop_ids: frozenset[int] = NO_STOP_IDS
) -> dict[tuple[int, int], list[int]]:
    """The ids of each sample of each request."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for event in engine.run(requests, params, stop_ids):
        found[event.request, event.sample] += [] if event.id is None else [event.id]
    return found


def finish_reasons(engine: Engine, request: Request, params: SamplingParams, stop_ids: frozenset[int] = NO_STOP_IDS) -> list[str]:
    return [event.finish_reason for event in engine.run([request], params, stop_ids) if event.finish_reason]


def most_likely_ids(model: GPT, prompt: list[int], count: int) -> list[int]:
    """The most likely continuation, with a full pass of the model for each id."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


PROMPTS = st.lists(st.lists(st.integers(0, 399), min_size=1, max_size=23), min_size=1, max_size=9)


@pytest.fixture(scope="module")
def models(model: GPT) -> list[GPT]:
    """One model for each shape."""
    return [model, random_model(qk_norm=False), random_model(tie_embeddings=False)]


@given(PROMPTS, st.integers(1, 4), st.integers(1, 30), st.integers(0, 2))
def test_greedy_ids_are_those_of_the_model_without_a_cache(
    models: list[GPT], prompts: list[list[int]], max_sequences: int, count: int, shape: int
) -> None:
    model = models[shape]
    found = generate(Engine(model, max_sequences), [Request(prompt) for prompt in prompts], SamplingParams(count, temperature=0))
    for index, prompt in enumerate(prompts):
        ids = found[index, 0]
        assert len(ids) == min(count, 24 - len(prompt))
        # One full pass predicts each generated id from the ids before it.
        assert ids == model(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1].argmax(dim=-1).tolist()


@given(PROMPTS, st.integers(1, 5), st.integers(0, 3))
def test_a_sample_does_not_depend_on_the_rest_of_the_batch(model: GPT, prompts: list[list[int]], max_sequences: int, seed: int) -> None:
    params = SamplingParams(6, temperature=1.5, seed=seed)
    requests = [Request(prompt, samples=1 + index % 3) for index, prompt in enumerate(prompts)]
    stop_ids = frozenset(range(0, 400, 7))
    assert generate(Engine(model, max_sequences), requests, params, stop_ids) == generate(Engine(model, 1), requests, params, stop_ids)


def test_samples_of_a_prompt_differ_and_a_seed_repeats_them(model: GPT) -> None:
    engine = Engine(model, max_sequences=3)
    first, again, other = (generate(engine, [Request([5, 6], samples=5)], SamplingParams(8, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({tuple(ids) for ids in first.values()}) == 5


def test_a_run_that_is_left_early_does_not_disturb_the_next(model: GPT) -> None:
    engine, request, params = Engine(model, max_sequences=3), Request([5, 6], samples=4), SamplingParams(8, seed=1)
    expected = generate(engine, [request], params)
    next(engine.run([request], params, NO_STOP_IDS))
    assert generate(engine, [request], params) == expected


def test_a_text_ends_at_a_stop_id_at_its_limit_or_at_the_end_of_the_context(model: GPT) -> None:
    engine = Engine(model)
    greedy = most_likely_ids(model, [5, 6], 22)
    stop_ids = frozenset(greedy[1:2])
    assert finish_reasons(engine, Request([5, 6]), SamplingParams(100, temperature=0)) == ["context"]
    assert finish_reasons(engine, Request([5, 6]), SamplingParams(3, temperature=0)) == ["tokens"]
    assert finish_reasons(engine, Request([5, 6]), SamplingParams(100, temperature=0), stop_ids) == ["stop"]
    before_stop = greedy[: greedy.index(greedy[1])]
    assert generate(engine, [Request([5, 6])], SamplingParams(9, temperature=0), stop_ids)[0, 0] == before_stop
    for prompt, count, reason in (([5] * 24, 5, "context"), ([5] * 23, 5, "context"), ([5], 0, "tokens")):
        assert finish_reasons(engine, Request(prompt), SamplingParams(count)) == [reason]
        assert len(generate(engine, [Request(prompt)], SamplingParams(count))[0, 0]) == (1 if len(prompt) == 23 else 0)


def test_the_mask_holds_for_the_first_token_only(model: GPT) -> None:
    allowed = torch.zeros(400, dtype=torch.bool)
    allowed[[3, 9]] = True
    found = generate(Engine(model, 4), [Request([1, 2], 20, allowed)], SamplingParams(2))
    assert {ids[0] for ids in found.values()} == {3, 9}
    assert not {ids[1] for ids in found.values()} <= {3, 9}


def test_log_probabilities_are_those_of_the_model(model: GPT) -> None:
    events = list(Engine(model, 2).run([Request([5, 6]), Request([7])], SamplingParams(4, temperature=0.3, top_k=2), NO_STOP_IDS))
    for index, prompt in enumerate(([5, 6], [7])):
        own = [event for event in events if event.request == index]
        ids = [event.id for event in own if event.id is not None]
        logprobs = model(torch.tensor([prompt + ids]))[0].log_softmax(-1)
        expected = [float(logprobs[len(prompt) - 1 + position, id]) for position, id in enumerate(ids)]
        assert [event.logprob for event in own] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("params", [SamplingParams(5, temperature=0), SamplingParams(5, top_k=20, top_p=0.9, min_p=0.01)])
def test_a_step_reads_from_the_device_only_once(model: GPT, params: SamplingParams, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.arange(400) > 50
    with CountReads(monkeypatch) as reads:
        events = Engine(model, 4).run([Request([5, 6], 3, mask), Request([7])], params, NO_STOP_IDS)
        counts = [(event.request, reads.count) for event in events]
    assert [count for _, count in counts] == [1] * 3 + [2] + [count for count in range(3, 7) for _ in range(4)]


@pytest.mark.parametrize("damage", [torch.nan, torch.inf])
def test_a_damaged_model_ends_in_one_line(damage: float) -> None:
    model = random_model()
    model.norm.weight.data[3] = damage
    for temperature in (0.0, 1.0):
        with pytest.raises(UserError, match="not finite"):
            list(Engine(model).run([Request([5, 6])], SamplingParams(3, temperature, top_k=7), NO_STOP_IDS))


def test_out_of_memory_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    message = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 44.39 GiB of which 1.20 GiB is free. "
        "Including non-PyTorch memory, this process has 43.00 GiB memory in use. Of the allocated memory 42.00 GiB is allocated ..."
    )

    def fail(*arguments: object, **named: object) -> None:
        raise torch.OutOfMemoryError(message)

    engine = Engine(random_model(), 3)
    monkeypatch.setattr(KVCache, "prefill", fail)
    with pytest.raises(UserError, match=r"allocate 2\.00 GiB.*1\.20 GiB is free\. 3 texts at once may be too many: try a"):
        list(engine.run([Request([5, 6])], SamplingParams(3), NO_STOP_IDS))
    for count in (1 << 45, 1 << 63):
        with pytest.raises(UserError, match=r"no memory for the keys and values of \d+ sequences\. .* try a lower --batch-size"):
            Engine(random_model(), count)
    monkeypatch.setattr(KVCache, "__init__", fail)
    with pytest.raises(UserError, match="texts at once may be too many"):
        Engine(random_model(), 3)
