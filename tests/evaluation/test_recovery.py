"""Recovery: log-probabilities of instructions with and without their response."""

import pytest

from evaluation.evaluated_model import EvaluatedModel
from evaluation.recovery import NONE, OTHER, OWN, measure_instructions
from formats.pairs import Pair
from tests.conftest import make_pairs
from tests.evaluation.conftest import make_recovery


def test_a_model_that_ignores_the_response_gains_nothing_from_it(bigram_model: EvaluatedModel) -> None:
    recovery = make_recovery(bigram_model, [Pair(f"{pair['instruction']} {pair['input']}", pair["output"]) for pair in make_pairs(60)])
    assert recovery.logprobs[OWN] == pytest.approx(recovery.logprobs[NONE], abs=1e-4)
    assert recovery.logprobs[OWN] == pytest.approx(recovery.logprobs[OTHER], abs=1e-4)


def test_without_enough_different_responses_no_pair_gets_another_one(bigram_model: EvaluatedModel) -> None:
    recovery = make_recovery(bigram_model, [Pair(f"Say {number}.", "Yes." if number % 3 else f"No {number}.") for number in range(30)])
    section = measure_instructions(recovery)
    assert OTHER not in recovery.logprobs
    assert list(section.rows) == [OWN, NONE, f"{NONE}, minus its own"]
    assert section.notes[0] == "Another pair's response is left out: more than half of the pairs have the same response."


def test_responses_are_the_same_however_they_are_cut(bigram_model: EvaluatedModel) -> None:
    long = "word " * 400
    pairs = [Pair("Say it.", long), Pair("Say it again, and once more.", long), Pair("What?", "No."), Pair("Who?", "Me.")]
    for seed in range(6):
        recovery = make_recovery(bigram_model, pairs, seed)
        assert len({pair.example.prompt_length for pair in recovery.pairs[:2]}) == 2  # cut to two lengths
        assert {*recovery.others[:2]} == {2, 3}
