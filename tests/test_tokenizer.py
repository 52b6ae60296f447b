"""The tokenizer: exact size, nothing lost, nothing forged, the same ids from both libraries."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tokenizer as tokenizer_module
from errors import UserError
from tests.conftest import make_documents
from text import reverse_words
from tokenizer import SPECIAL_TOKENS, Tokenizer, prove_encoder, train_tokenizer

TEXTS = [*make_documents(300), '<p class="thead">ad></p> <pad> <unk> <0x0A> <|im_end|> <|endoftext|>' * 3]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 420)


def forging(markers: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(st.text(max_size=6), st.sampled_from(markers), st.sampled_from([" ", "\n", "<", "|>"])), max_size=12).map(
        "".join
    )


TEXT = forging([*SPECIAL_TOKENS, "<pad>", "<unk>", "<0x0A>", "\u2581"]).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)


def test_exactly_the_size_asked_for(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 420
    assert max(tokenizer.encode("".join(TEXTS))) < 420


@settings(max_examples=300)
@given(text=TEXT)
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    # SentencePiece writes a space as U+2581, so that one character is read as a space.
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ")


@settings(max_examples=300)
@given(text=TEXT)
def test_no_text_forges_a_special_token(tokenizer: Tokenizer, text: str) -> None:
    special = {tokenizer.special_id(token) for token in SPECIAL_TOKENS} | {0, 1}
    ids, _ = tokenizer.encoder("gigatoken")([text])
    assert not special & set(tokenizer.encode(text))
    assert not special & set(ids.tolist())


@settings(max_examples=200)
@given(texts=st.lists(TEXT, max_size=5))
def test_both_libraries_give_the_same_ids(tokenizer: Tokenizer, texts: list[str]) -> None:
    texts += [reverse_words(text) for text in texts]
    (fast_ids, fast_counts), (true_ids, true_counts) = tokenizer.encoder("gigatoken")(texts), tokenizer.encoder("sentencepiece")(texts)
    assert fast_ids.tolist() == true_ids.tolist()
    assert fast_counts.tolist() == true_counts.tolist()


@settings(max_examples=200)
@given(text=TEXT)
def test_bytes_per_id_add_up(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.bytes_per_id[ids].sum() == len(text.replace("\u2581", " ").encode())
    assert tokenizer.bytes_per_id[[tokenizer.special_id(token) for token in SPECIAL_TOKENS]].sum() == 0


def test_training_is_deterministic(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(TEXTS, 420).sha256 == tokenizer.sha256


def test_no_piece_holds_a_line_break(tokenizer: Tokenizer) -> None:
    newline = tokenizer.encode("\n")
    assert tokenizer.encode("cat\n\ndog") == [*tokenizer.encode("cat"), *newline * 2, *tokenizer.encode("dog")]


def test_a_vocabulary_beyond_the_text_is_refused_with_the_limit() -> None:
    with pytest.raises(UserError, match=r"--vocab-size 5000: the sample of text is enough for \d+ at most"):
        train_tokenizer(["a small text"], 5000)


def test_a_small_vocabulary_of_many_characters_falls_back_to_bytes() -> None:
    texts = ["".join(chr(0x4E00 + i) for i in range(3000)), "plain words here " * 200]
    small = train_tokenizer(texts, 320)
    assert small.vocab_size == 320
    assert small.decode(small.encode(texts[0])) == texts[0]


def test_foreign_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        Tokenizer(b"no model", "x.model")
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer.load(tmp_path)


def test_gigatoken_is_proved_on_the_data(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prove_encoder(tokenizer, TEXTS)[0] == "gigatoken"

    def wrong(texts: list[str]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        ids, counts = tokenizer.encoder("sentencepiece")(texts)
        return ids + 1, counts

    monkeypatch.setattr(tokenizer_module.Tokenizer, "_gigatoken_encoder", lambda self: wrong)
    name, notice = prove_encoder(tokenizer, TEXTS)
    assert name == "sentencepiece"
    assert "gigatoken gave other ids" in notice


def test_without_gigatoken_one_line_says_so(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    name, notice = prove_encoder(tokenizer, TEXTS)
    assert name == "sentencepiece"
    assert "pip install gigatoken" in notice


def test_ids_that_begin_a_word(tokenizer: Tokenizer) -> None:
    begins = tokenizer.begins_word
    assert begins[tokenizer.end_of_text]
    assert begins[tokenizer.encode(" cat")[0]]
    assert begins[tokenizer.encode("\n")[0]]
    assert not begins[tokenizer.encode("cat")[0]]
    assert not begins[tokenizer.special_id("<|im_end|>")]
