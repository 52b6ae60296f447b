"""The filtering section: a pair counts as mismatched only if its new response is false for its instruction."""

from evaluation.evaluated_model import EvaluatedModel
from evaluation.filtering import measure_filtering
from formats.pairs import Pair
from tests.evaluation.conftest import make_recovery


def test_without_different_responses_it_is_left_out(bigram_model: EvaluatedModel) -> None:
    recovery = make_recovery(bigram_model, [Pair(f"Say {number}.", "Yes." if number % 3 else f"No {number}.") for number in range(30)])
    section = measure_filtering(recovery, 0.5)
    assert not section.rows  # two thirds have the same response
    assert section.notes == ["Left out: too few pairs with different responses."]


def test_a_response_that_is_true_for_the_instruction_is_not_a_mismatch(bigram_model: EvaluatedModel) -> None:
    # Each response belongs to two instructions, so another pair's response can be true for an instruction.
    pairs = [Pair(f"Say {number % 3}.", f"It is {number // 2 % 3}.") for number in range(12)]
    for seed in range(4):
        recovery = make_recovery(bigram_model, pairs, seed)
        mismatched = [
            index for index, other in enumerate(recovery.others) if Pair(pairs[index].instruction, pairs[other].response) not in set(pairs)
        ]
        assert 0 < len(mismatched) < len(pairs)
        note = measure_filtering(recovery, 0.5).notes[0]
        assert note.startswith(f"Of {len(mismatched)} pairs, {round(len(mismatched) / 2)} got another pair's response.")
