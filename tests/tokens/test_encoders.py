"""Encoders: gigatoken gives the ids of SentencePiece, and is used only where it does."""

import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.tokens.conftest import FORGING_TEXTS, TRAINING_TEXTS
from tokens import encoders
from tokens.encoders import choose_encoder, make_encoder
from tokens.reversal import reverse_words
from tokens.tokenizer import Tokenizer


@settings(max_examples=200)
@given(texts=st.lists(FORGING_TEXTS, max_size=5), memory_bytes=st.sampled_from([0, 50, 1 << 20]))
def test_both_libraries_give_the_same_ids(tokenizer: Tokenizer, texts: list[str], memory_bytes: int) -> None:
    texts += [reverse_words(text) for text in texts]
    true_ids, true_counts = make_encoder(tokenizer, "sentencepiece")(texts)
    with mock.patch.object(encoders, "MEMORY_BYTES", memory_bytes):
        encode = make_encoder(tokenizer, "gigatoken")
        encode([text.encode() for text in texts[1:]])  # it remembers words
        fast_ids, fast_counts = encode(texts)
    assert fast_ids.tolist() == true_ids.tolist()
    assert fast_counts.tolist() == true_counts.tolist()


def test_gigatoken_is_used_only_if_its_ids_are_right_on_this_data(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_encoder(tokenizer, TRAINING_TEXTS)[0] == "gigatoken"

    def wrong(texts: list[str]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        ids, counts = make_encoder(tokenizer, "sentencepiece")(texts)
        return ids + 1, counts

    monkeypatch.setattr(encoders, "_gigatoken_encoder", lambda tokenizer: wrong)
    name, notice = choose_encoder(tokenizer, TRAINING_TEXTS)
    assert name == "sentencepiece"
    assert "gigatoken gave different ids" in notice


def test_without_gigatoken_sentencepiece_is_used_and_one_line_says_so(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    name, notice = choose_encoder(tokenizer, TRAINING_TEXTS)
    assert name == "sentencepiece"
    assert "pip install gigatoken" in notice
