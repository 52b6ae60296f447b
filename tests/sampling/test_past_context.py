"""Texts that are longer than the context."""

import pytest

from sampling.engine import Engine, Request
from sampling.past_context import generate_past_context
from sampling.sampler import SamplingParams
from tests.sampling.conftest import random_model


def crop(ids: list[int]) -> list[int]:
    return [2, *ids[-12:]]


def generate(count: int, samples: int = 1, seed: int = 0, temperature: float = 1.0) -> list[list[int]]:
    """The ids of each sample of a model whose context is 24."""
    events = generate_past_context(
        Engine(random_model(), 2), Request([2, 7], samples), SamplingParams(count, temperature, seed=seed), frozenset(), crop
    )
    texts: list[list[int]] = [[] for _ in range(samples)]
    ends = []
    for event in events:
        texts[event.sample] += [] if event.id is None else [event.id]
        ends += [event.finish_reason] if event.finish_reason else []
    assert ends == ["tokens"] * samples
    return texts


@pytest.mark.parametrize("count", [5, 21, 22, 23, 40, 100])
def test_a_text_has_the_length_that_was_asked_for(count: int) -> None:
    texts = generate(count, samples=3)
    assert [len(text) for text in texts] == [count] * 3
    assert texts == generate(count, samples=3)  # a seed repeats it
    assert texts[0] != texts[1]


def test_within_the_context_nothing_changes() -> None:
    engine = Engine(random_model())
    events = list(engine.run([Request([2, 7])], SamplingParams(20, temperature=0), frozenset()))
    assert generate(20, temperature=0) == [[event.id for event in events]]


def test_past_the_context_the_model_reads_the_nearest_ids() -> None:
    engine, [text] = Engine(random_model()), generate(40, temperature=0)
    first = 22  # the context holds 24 ids, two of which are the prompt
    again = engine.run([Request(crop([2, 7, *text[:first]]))], SamplingParams(40 - first, temperature=0), frozenset())
    assert [event.id for event in again][: 24 - 13] == text[first : first + 24 - 13]


def test_a_text_that_may_not_go_on_ends_with_the_context() -> None:
    request, params = Request([2, 7]), SamplingParams(100)
    events = list(generate_past_context(Engine(random_model()), request, params, frozenset(), lambda ids: []))
    assert (len(events), events[-1].finish_reason) == (22, "context")
