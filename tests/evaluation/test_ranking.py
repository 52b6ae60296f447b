"""The ranking section: a model that ignores the response is at chance, and true answers are no false candidates."""

from evaluation.bootstrap import Estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.ranking import TOGETHER, measure_ranking
from evaluation.recovery import GAIN, GIVEN, WORDS
from formats.pairs import Pair
from tests.conftest import make_pairs
from tests.evaluation.conftest import make_recovery


def test_a_model_that_ignores_the_response_is_at_chance(bigram_model: EvaluatedModel) -> None:
    recovery = make_recovery(bigram_model, [Pair(f"{pair['instruction']} {pair['input']}", pair["output"]) for pair in make_pairs(60)])
    section, picture = measure_ranking(recovery, recovery.pairs, [10], 60)
    for column, chance in enumerate(section.rows["10 others: chance"]):
        found = section.rows[f"10 others: {GIVEN}"][column]
        assert isinstance(found, Estimate) and isinstance(chance, Estimate) and found.low is not None and found.high is not None
        assert found.low <= chance.value <= found.high
    assert picture and set(picture.curves) == {GIVEN, GAIN, WORDS, TOGETHER, "chance"}


def test_instructions_with_the_same_response_are_not_false_candidates(bigram_model: EvaluatedModel) -> None:
    recovery = make_recovery(bigram_model, [Pair(f"Say {number} now.", "Yes." if number < 5 else f"No {number}.") for number in range(12)])
    section, _ = measure_ranking(recovery, recovery.pairs, [7, 8], 12)
    assert "7 others: chance" in section.rows
    assert section.notes[0] == "8 others: left out. A response has only 7 other instructions."


def test_an_instruction_longer_than_half_of_the_context_is_left_out(bigram_model: EvaluatedModel) -> None:
    pairs = [Pair(f"Say {number}.", f"It is {number}.") for number in range(6)]
    recovery = make_recovery(bigram_model, [*pairs, Pair("7" * 70, "It is long.")])
    section, _ = measure_ranking(recovery, recovery.pairs, [5], 12)
    assert section.notes[0].startswith("6 responses. ")
    assert section.notes[-1].startswith("1 pair left out, ")
