"""The language sections: the gap between twins by hand, and losses against their sums."""

import math

import numpy as np
import pytest

from evaluation.bootstrap import Estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.gaps import TextLosses, gaps
from evaluation.language import measure_language


def test_the_gap_by_hand() -> None:
    tokens = np.array([10.0, 20.0, 40.0])
    one, other = (TextLosses([], factor * tokens, tokens * length) for factor, length in ((2.2, 1.1), (2.0, 1.0)))
    by_token, by_byte = gaps(one, other)
    for chosen in (np.array([0, 1, 2]), np.array([2, 2, 0])):
        assert by_token(chosen) == pytest.approx(0)  # 2 nats per token in both
        assert by_byte(chosen) == pytest.approx(0.1)


def test_a_model_and_its_copy_have_no_gap(bigram_model: EvaluatedModel) -> None:
    texts = ["the cat sleeps.", "a dog runs under the tree and over the house.", "old and small"]
    section, picture = measure_language([bigram_model, bigram_model._replace(name="copy")], texts, "texts", "x.png", 0, 0)
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
    pretrained = bigram_model._replace(name="other", checkpoint=type(checkpoint)(**{**vars(checkpoint), "stage": "pretraining"}))
    section, _ = measure_language([bigram_model, pretrained], ["a b", "c"], "texts", "x.png", 0, 0)
    assert "gap" not in section.rows
    assert "No gap: one model is tuned, the other is not." in section.notes
