"""A small tokenizer and texts that try to forge special tokens."""

import pytest
from hypothesis import strategies as st

from tests.conftest import make_documents
from tokens.tokenizer import SPECIAL_TOKENS, Tokenizer
from tokens.tokenizer_training import train_tokenizer

TRAINING_TEXTS = [*make_documents(300), '<p class="thead">ad></p> <pad> <unk> <0x0A> <|im_end|> <|endoftext|>' * 3]
MARKERS = [*SPECIAL_TOKENS, "<pad>", "<unk>", "<0x0A>", "\u2581"]
PARTS = st.one_of(st.text(max_size=6), st.sampled_from(MARKERS), st.sampled_from([" ", "\n", "<", "|>"]))
# Any valid Unicode, without lone surrogates.
FORGING_TEXTS = st.lists(PARTS, max_size=12).map("".join).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TRAINING_TEXTS, 420)
