"""Instruction recovery: what all its sections share, and the section on what a model takes from a response.

The sections: how much a response helps (here), ranking, filtering, generated instructions (a module each).
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from evaluation.bootstrap import Values, ratio_estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.held_out import HeldOutPair
from evaluation.logprobs import instruction_logprobs
from evaluation.report import Section, with_progress
from system.amounts import amount
from tokens.prompt_format import PromptFormat
from training.examples import Example
from training.shuffled_responses import assign_other_responses, with_other_responses

OWN, OTHER, NONE = "its own response", "another pair's response", "none"  # the response that the model reads
GIVEN, GAIN, WORDS = (  # the ways to score how well an instruction fits a response
    "log P(instruction | response)",
    "log P(instruction | response) - log P(instruction)",
    "BM25 word overlap",
)


class Recovery:
    """A tuned model and held-out pairs, with the log-probability of each instruction."""

    def __init__(self, model: EvaluatedModel, pairs: Sequence[HeldOutPair], seed: int) -> None:
        self.model = model
        self.pairs = pairs
        self.seed = seed
        self.prompt_format = PromptFormat(model.checkpoint.tokenizer, model.checkpoint.order)

    @cached_property
    def others(self) -> list[int]:
        """For each pair, the index of a pair with a different response; empty if more than half share one response."""
        responses = [pair.response for pair in self.pairs]
        too_many_alike = 2 * max(Counter(responses).values()) > len(responses)
        return [] if too_many_alike else assign_other_responses(responses, self.seed)

    @cached_property
    def logprobs(self) -> dict[str, Values]:
        """Log P of each instruction given its own response, another pair's response (if `others` has one), and none."""
        own = [pair.example for pair in self.pairs]
        groups = {OWN: own, OTHER: self._with_other_responses(own), NONE: self._with_empty_responses(own)}
        return {name: self._score(name, examples) for name, examples in groups.items() if examples}

    def _with_other_responses(self, examples: list[Example]) -> list[Example]:
        if not self.others:
            return []
        return with_other_responses(examples, self.others, len(self.prompt_format.before_response), self.model.block_size)

    def _with_empty_responses(self, examples: list[Example]) -> list[Example]:
        """The only way to ask a tuned model for an instruction without a response."""
        prompt = np.array(self.prompt_format.prompt([]))
        return [Example(np.concatenate([prompt, example.ids[example.prompt_length :]]), len(prompt)) for example in examples]

    def _score(self, name: str, examples: list[Example]) -> Values:
        def score(examples: Sequence[Example]) -> Iterator[float]:
            return with_progress(instruction_logprobs(self.model.scorer, examples), len(examples), f"instructions, given {name}")

        return np.array(self.model.ranks.divided(score, examples))


def measure_instructions(recovery: Recovery) -> Section:
    """How much a response helps the model to predict its instruction."""
    section = Section("Instructions, given a response", ("bits per byte",))
    bytes_per_id = recovery.prompt_format.tokenizer.bytes_per_id
    sizes = np.array([bytes_per_id[list(pair.instruction_ids)].sum() for pair in recovery.pairs], float)
    bits = {name: -logprobs / math.log(2) for name, logprobs in recovery.logprobs.items()}
    for name, values in bits.items():
        section.rows[name] = (ratio_estimate(values, sizes, recovery.seed),)
    for name in (OTHER, NONE):
        if name in bits:
            section.rows[f"{name}, minus its own"] = (ratio_estimate(bits[name] - bits[OWN], sizes, recovery.seed),)
    if OTHER not in bits:
        section.notes.append("Another pair's response is left out: more than half of the pairs have the same response.")
    seen = "saw that in tuning too" if recovery.model.checkpoint.train_config.get("contrast") else "never saw that in tuning"
    section.notes += [
        f"{amount(len(recovery.pairs), 'pair')}. The end token of an instruction counts as a token of zero bytes.",
        f"Without a response, the model reads an empty one; it {seen}.",
    ]
    return section
