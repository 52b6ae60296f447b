"""Training the tokenizer: deterministic, no piece across lines, and vocabularies that are too large or too small."""

import pytest

from config import MIN_VOCAB_SIZE
from system.errors import UserError
from tests.tokens.conftest import TRAINING_TEXTS
from tokens.tokenizer import Tokenizer
from tokens.tokenizer_training import train_tokenizer


def test_training_is_deterministic(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(TRAINING_TEXTS, 420).sha256 == tokenizer.sha256


def test_no_piece_holds_a_line_break(tokenizer: Tokenizer) -> None:
    newline = tokenizer.encode("\n")
    assert tokenizer.encode("cat\n\ndog") == [*tokenizer.encode("cat"), *newline * 2, *tokenizer.encode("dog")]


def test_a_vocabulary_too_large_for_the_text_is_refused_with_the_limit() -> None:
    with pytest.raises(UserError, match=r"--vocab-size 5000: this text supports at most \d+"):
        train_tokenizer(["a small text"], 5000)


def test_no_text_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to train the tokenizer on. Check --input"):
        train_tokenizer(["", "\n\n"], 400)


def test_with_more_characters_than_ids_the_rare_ones_fall_back_to_bytes() -> None:
    texts = ["".join(chr(0x4E00 + i) for i in range(3000)), "plain words here " * 200]
    small = train_tokenizer(texts, 320)
    assert small.vocab_size == 320
    assert small.decode(small.encode(texts[0])) == texts[0]


@pytest.mark.parametrize("vocab_size", [MIN_VOCAB_SIZE, MIN_VOCAB_SIZE + 1, 400, 1000])
def test_many_characters_and_nothing_to_merge_fill_any_vocabulary(vocab_size: int) -> None:
    """Half of the ids would go to merges, of which such text has too few."""
    texts = ["".join(chr(0x4E00 + (row * 40 + column) * 7 % 20_000) for column in range(40)) for row in range(60)]
    tokenizer = train_tokenizer(texts, vocab_size)
    assert tokenizer.vocab_size == vocab_size
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts
