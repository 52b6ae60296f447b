"""The section on generated instructions: the guesses that need no model, and what the notes say."""

from evaluation.evaluated_model import EvaluatedModel
from evaluation.generated_instructions import first_sentence, measure_generated_instructions
from formats.pairs import Pair
from tests.evaluation.conftest import make_recovery


def test_first_sentences() -> None:
    assert [first_sentence(text) for text in ("It is 3.5 m. Or not.", "Who? Me", "One\ntwo.", "one", "")] == [
        "It is 3.5 m.", "Who?", "One", "one", "",
    ]  # fmt: skip


def test_guesses_from_training_pairs_are_searched_and_counted(bigram_model: EvaluatedModel) -> None:
    recovery = make_recovery(bigram_model, [Pair("Name a cat.", "The cat is red."), Pair("Name a dog.", "The dog is blue.")])
    training = [Pair("Name a dog.", "A blue dog."), Pair("Name a cat.", "A red cat."), Pair("Name a dog.", "It is that.")]
    section = measure_generated_instructions(recovery, training, 4, 2)
    columns = {name: dict(zip(section.columns, cells, strict=True)) for name, cells in section.rows.items()}
    assert str(columns["instruction of the most similar training response"]["exact"]) == "100.0% (100.0%..100.0%)"
    assert str(columns["most frequent training instruction"]["exact"]).startswith("50.0%")
    assert str(columns["most frequent training instruction"]["distinct"]) == "50.0%"
    assert columns["first sentence of the response"]["ends by itself"] == ""
    assert section.notes[0] == (
        "Compared with 3 training pairs, whose most frequent instruction occurs 2 times. "
        "100.0% of the true instructions occur among them word for word."
    )
    without = measure_generated_instructions(recovery, [], 4, 2)
    assert list(without.rows) == ["the model", "first sentence of the response"]
    assert without.notes[0] == "2 pairs; responses cut to fit into the context: 0."
