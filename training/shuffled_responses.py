"""The control for instruction tuning: every instruction after the response of another pair."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from training.examples import Example


def assign_other_responses(responses: Sequence[Hashable], seed: int) -> list[int]:
    """For each response the index of a different one; possible unless more than half are equal."""
    # Arranged in a circle with equal responses together, each takes the one that is the size of the largest group further on.
    ranks = dict(zip(dict.fromkeys(responses), np.random.default_rng(seed).permutation(len(set(responses))).tolist(), strict=True))
    order = sorted(range(len(responses)), key=lambda index: ranks[responses[index]])
    shift = max(Counter(responses).values())
    other_of = dict(zip(order, [*order[shift:], *order[:shift]], strict=True))
    return [other_of[index] for index in range(len(responses))]


def with_other_responses(examples: Sequence[Example], others: Sequence[int], begin: int, block_size: int) -> list[Example]:
    """Each instruction after the response of another example; `begin` special ids come before a response.

    A response that is too long for its new instruction loses the end farthest from it.
    """
    found = []
    for example, other in zip(examples, others, strict=True):
        prompt = examples[other].ids[: examples[other].prompt_length]
        instruction = example.ids[example.prompt_length :]
        excess = max(0, len(prompt) + len(instruction) - 1 - block_size)
        prompt = np.concatenate([prompt[:begin], prompt[begin + excess :]])
        found.append(Example(np.concatenate([prompt, instruction]), len(prompt)))
    return found
