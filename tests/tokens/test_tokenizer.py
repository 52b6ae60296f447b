"""The tokenizer: every text comes back, and no text becomes a special token."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from system.errors import UserError
from tests.tokens.conftest import FORGING_TEXTS, TRAINING_TEXTS
from tokens.encoders import make_encoder
from tokens.tokenizer import SPECIAL_TOKENS, Tokenizer


def test_the_vocabulary_has_exactly_the_size_asked_for(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 420
    assert max(tokenizer.encode("".join(TRAINING_TEXTS))) < 420


@settings(max_examples=300)
@given(text=FORGING_TEXTS)
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    # SentencePiece writes a space as U+2581, so that one character is read as a space.
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ")


@settings(max_examples=300)
@given(text=FORGING_TEXTS)
def test_no_text_becomes_a_special_token(tokenizer: Tokenizer, text: str) -> None:
    special = {tokenizer.special_id(token) for token in SPECIAL_TOKENS} | {0, 1}
    ids, _ = make_encoder(tokenizer, "gigatoken")([text])
    assert not special & set(tokenizer.encode(text))
    assert not special & set(ids.tolist())


@settings(max_examples=200)
@given(text=FORGING_TEXTS)
def test_bytes_per_id_add_up_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.bytes_per_id[ids].sum() == len(text.replace("\u2581", " ").encode())
    assert tokenizer.bytes_per_id[[tokenizer.special_id(token) for token in SPECIAL_TOKENS]].sum() == 0


def test_ids_that_begin_a_word(tokenizer: Tokenizer) -> None:
    begins_word = tokenizer.begins_word
    assert begins_word[tokenizer.end_of_text]
    assert begins_word[tokenizer.encode(" cat")[0]]
    assert begins_word[tokenizer.encode("\n")[0]]
    assert not begins_word[tokenizer.encode("cat")[0]]
    assert not begins_word[tokenizer.special_id("<|im_end|>")]


def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        Tokenizer(b"no model", "x.model")
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        Tokenizer(b"", "x.model")
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_without_its_last_settings_is_refused(tokenizer: Tokenizer) -> None:
    """Cut off between two fields it is still a model, which would put a space before each text."""
    end = tokenizer.model.rindex(b"\x1a\x10\n\x08identity")  # where the settings of the normalizer begin
    with pytest.raises(UserError, match="x.model changes spaces, so it is damaged"):
        Tokenizer(tokenizer.model[:end], "x.model")


@pytest.mark.parametrize("model", [b"", b"\x80\x04N."])
def test_what_is_no_model_is_refused(model: bytes) -> None:
    """An empty file, such as a download that broke off, and a pickle."""
    with pytest.raises(UserError, match="the tokenizer is not a SentencePiece model, or is damaged. Train one with: "):
        Tokenizer(model)


def test_the_tokenizer_of_a_folder_is_no_link_to_a_file_elsewhere(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere.model").write_bytes(tokenizer.model)
    (tmp_path / "data" / "tokenizer.model").symlink_to("../elsewhere.model")
    with pytest.raises(UserError, match="tokenizer.model is a link to .*, out of this folder"):
        Tokenizer.load(tmp_path / "data")
    assert Tokenizer.load(tmp_path / "data" / "tokenizer.model").model == tokenizer.model  # named itself
