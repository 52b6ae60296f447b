"""The control with shuffled responses: every instruction after a response that belongs to another pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import make_examples
from tokens.prompt_format import PromptFormat
from training.examples import Example
from training.shuffled_responses import assign_other_responses, with_other_responses


def shuffle_responses(examples: list[Example], prompt_format: PromptFormat, block_size: int, seed: int) -> list[Example]:
    prompts = [example.ids[: example.prompt_length].tobytes() for example in examples]
    return with_other_responses(examples, assign_other_responses(prompts, seed), len(prompt_format.before_response), block_size)


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=30), st.integers(0, 3))
def test_everyone_gets_a_different_response_unless_more_than_half_are_equal(responses: list[str], seed: int) -> None:
    others = assign_other_responses(responses, seed)
    assert sorted(others) == list(range(len(responses)))
    if max(map(responses.count, responses)) <= len(responses) / 2:
        assert all(responses[other] != response for response, other in zip(responses, others, strict=True))


def test_an_equal_response_of_another_pair_is_not_used(prompt_format: PromptFormat) -> None:
    examples = make_examples(prompt_format, [(2, 1)] * 9)
    for index, example in enumerate(examples):
        response = slice(len(prompt_format.before_response), example.prompt_length - len(prompt_format.before_instruction))
        example.ids[response] = 300 + max(0, index - 3)  # the first four have the same response
    shuffled = shuffle_responses(examples, prompt_format, block_size=48, seed=0)
    for example, other in zip(examples, shuffled, strict=True):
        assert other.ids[: other.prompt_length].tolist() != example.ids[: example.prompt_length].tolist()
        assert other.ids[other.prompt_length :].tolist() == example.ids[example.prompt_length :].tolist()


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 15)), min_size=2, max_size=20))
def test_every_instruction_stays_and_every_response_moves(prompt_format: PromptFormat, lengths: list[tuple[int, int]]) -> None:
    examples = make_examples(prompt_format, lengths)
    start, last = len(prompt_format.before_response), len(prompt_format.before_instruction) + 1
    for index, example in enumerate(examples):
        example.ids[example.prompt_length - last] = 300 + index  # the last id of a response identifies it
    block_size = max(example.length for example in examples)
    shuffled = shuffle_responses(examples, prompt_format, block_size, seed=1)
    for example, other in zip(examples, shuffled, strict=True):
        source = examples[other.ids[other.prompt_length - last] - 300]
        assert source is not example
        assert other.ids[other.prompt_length :].tolist() == example.ids[example.prompt_length :].tolist()
        assert other.length <= block_size
        assert other.ids[:start].tolist() == prompt_format.before_response
        response = other.ids[start : other.prompt_length].tolist()
        assert source.ids[start : source.prompt_length].tolist()[-len(response) :] == response
    assert len({int(other.ids[other.prompt_length - last]) for other in shuffled}) == len(examples)


def test_a_response_that_is_too_long_loses_the_end_farthest_from_the_instruction(prompt_format: PromptFormat) -> None:
    short, long = make_examples(prompt_format, [(1, 12), (12, 1)])
    start = len(prompt_format.before_response)
    [beside_long_response, _] = with_other_responses([short, long], [1, 0], start, block_size=long.length)
    assert beside_long_response.length == long.length
    kept = beside_long_response.ids[start : beside_long_response.prompt_length]
    np.testing.assert_array_equal(kept, long.ids[long.prompt_length - len(kept) : long.prompt_length])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides_the_assignment(seed: int) -> None:
    responses = [str(index) for index in range(20)]
    assert assign_other_responses(responses, seed) == assign_other_responses(responses, seed)
    assert assign_other_responses(responses, seed) != assign_other_responses(responses, seed + 1)
