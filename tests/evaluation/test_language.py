"""The language sections: the gap between twins by hand, and losses against their sums."""

import math

import pytest
import torch

from evaluation.bootstrap import Estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.language import measure_language
from sampling.scoring import Scorer


def test_a_model_and_its_copy_have_no_gap(bigram_model: EvaluatedModel) -> None:
    texts = ["the cat sleeps.", "a dog runs under the tree and over the house.", "old and small"]
    section, picture = measure_language([bigram_model, bigram_model._replace(name="copy", is_other=True)], texts, "texts", "x.png", 0, 0)
    assert section.rows["bigram model"] == section.rows["copy"]
    by_token, empty, by_byte = section.rows["gap"]
    assert isinstance(by_token, Estimate) and isinstance(by_byte, Estimate) and empty == ""
    assert by_token[:3] == by_byte[:3] == (0, 0, 0)
    loss, perplexity, bits_per_byte = section.rows["copy"]
    assert isinstance(loss, Estimate) and isinstance(perplexity, Estimate) and isinstance(bits_per_byte, Estimate)
    assert perplexity.value == pytest.approx(math.exp(loss.value))
    lengths = [len(bigram_model.checkpoint.tokenizer.encode(text)) + 1 for text in texts]  # with the end token
    assert bits_per_byte.value == pytest.approx(loss.value / math.log(2) * sum(lengths) / sum(map(len, texts)), rel=0.1)
    assert picture.curves["copy"][0][0] == 1 and picture.curves["copy"][0][1].examples == 3


def test_models_of_two_stages_have_no_gap_and_a_note(bigram_model: EvaluatedModel) -> None:
    checkpoint = bigram_model.checkpoint
    changed = type(checkpoint)(**{**vars(checkpoint), "stage": "pretraining"})
    pretrained = bigram_model._replace(name="other", is_other=True, checkpoint=changed)
    section, picture = measure_language([bigram_model, pretrained], ["a b", "c"], "texts", "x.png", 0, 0)
    assert "gap" not in section.rows
    assert section.remarks == {"bigram model": "judge its text by its pretrained checkpoint"}  # it is the tuned one
    assert (list(picture.curves), picture.title, picture.gaps) == (["other"], "Loss by position in the text: texts, 2 texts", {})
    assert "No gap: one model is tuned, the other is not." in section.notes


def test_seeds_have_their_mean_and_spread(bigram_model: EvaluatedModel) -> None:
    """Of two models, one of which has other embeddings: the mean lies between them, and the spread is half their distance times sqrt(2)."""
    checkpoint = bigram_model.checkpoint
    weights = {name: -2 * tensor if name == "embedding.weight" else tensor for name, tensor in checkpoint.weights.items()}
    changed = type(checkpoint)(**{**vars(checkpoint), "weights": weights})
    other = bigram_model._replace(checkpoint=changed, scorer=Scorer(changed.make_model(torch.device("cpu")), 4))
    models = [model._replace(name=f"bigram model {number}", kind="bigram model") for number, model in enumerate((bigram_model, other), 1)]
    section, picture = measure_language(models, ["the cat sleeps.", "a dog runs.", "old"], "texts", "x.png", 0, 0)
    assert list(section.rows) == ["bigram model 1", "bigram model 2", "bigram model: mean of 2", "bigram model: spread of 2"]
    for column in (0, 2):
        one, two, mean, spread = (cells[column] for cells in section.rows.values())
        assert isinstance(one, Estimate) and isinstance(two, Estimate) and isinstance(mean, Estimate) and isinstance(spread, Estimate)
        assert abs(one.value - two.value) > 0.1
        assert mean.value == pytest.approx((one.value + two.value) / 2) and mean.low is not None
        assert spread.value == pytest.approx(abs(one.value - two.value) / math.sqrt(2)) and spread.low is None
    assert sum("tokens of 3 texts, each counted once" in note for note in section.notes) == 1  # seeds share it
    names = ["bigram model 1", "bigram model 2", "bigram model: mean of 2"]
    assert list(picture.curves) == names and names[2] in picture.means
    assert picture.families == dict.fromkeys(names, "bigram model")
    assert picture.title == "Loss by position in the text, after tuning on pairs: texts, 3 texts"  # there is nothing else to draw


def test_the_curve_ends_where_few_texts_go_on(bigram_model: EvaluatedModel) -> None:
    """One text in thirty is long: it is in the loss, and the end of the curve is not its own."""
    _, picture = measure_language([bigram_model], [*["the cat"] * 29, "the cat sleeps " * 40], "texts", "x.png", 0, 0)
    [curve] = picture.curves.values()
    assert [estimate.examples for _, estimate in curve] == [30] * len(curve)
    _, picture = measure_language([bigram_model], [*["the cat"] * 9, "the cat sleeps " * 40], "texts", "x.png", 0, 0)
    [curve] = picture.curves.values()
    assert curve[-1][1].examples == 1  # a tenth of the texts goes on
