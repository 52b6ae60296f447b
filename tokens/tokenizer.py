"""The tokenizer: a SentencePiece model, its special tokens, and the bytes of text behind each id."""

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from config import MAX_VOCAB_SIZE
from system.errors import BAD_FLAGS, UserError
from system.files import refuse_link_out

END_OF_TEXT = "<|endoftext|>"
# Control symbols: no text encodes to them, however it is spelled. Only code inserts them.
SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    "<|im_end|>",
    "<|instruction|>",
    "<|response|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
)
SPACES = "  a  \n a "  # a text to try
SPACE = "▁"  # how SentencePiece writes a space


class Tokenizer:
    """A SentencePiece model, kept as the bytes of its file so that data folders and checkpoints can carry it."""

    def __init__(self, model: bytes, name: str = "the tokenizer") -> None:
        self.model = model
        damaged = f"{name} is not a SentencePiece model, or is damaged. Train one with: python preprocess_xcoax.py"
        if not model:  # the library makes a processor of it, which fails later
            raise UserError(damaged)
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            if self.vocab_size > MAX_VOCAB_SIZE:
                raise UserError(f"{name} has {self.vocab_size:,} ids; at most {MAX_VOCAB_SIZE:,} are possible here")
            for id in range(self.vocab_size):
                self.processor.id_to_piece(id)
            lacking = [token for token in SPECIAL_TOKENS if not self.processor.is_control(self.processor.piece_to_id(token))]
        except (RuntimeError, UnicodeDecodeError, TypeError, IndexError) as error:  # IndexError: no ids, or no unknown one
            raise UserError(damaged) from error
        if lacking:
            raise UserError(f"{name} has no control symbol {lacking[0]}. Train one with: python preprocess_xcoax.py")
        if not any(self.processor.is_byte(id) for id in range(self.vocab_size)):
            raise UserError(f"{name} has no byte fallback, so it would lose text. Train one with: python preprocess_xcoax.py")
        # A file that ends early can still be a model, without the settings at its end: it would change spaces.
        if self.processor.normalize(SPACES) != SPACES.replace(" ", SPACE):
            raise UserError(f"{name} changes spaces, so it is damaged, or not of this project. Train one with: python preprocess_xcoax.py")

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.model, or the one in a data folder."""
        file = path
        if path.is_dir():
            file = path / "tokenizer.model"
            refuse_link_out(file)
        try:
            return cls(file.read_bytes(), str(file))
        except OSError as error:
            raise UserError(f"no tokenizer at {file}: {error.strerror}", BAD_FLAGS) from error

    @property
    def vocab_size(self) -> int:
        return int(self.processor.get_piece_size())

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def special_id(self, token: str) -> int:
        assert token in SPECIAL_TOKENS, token
        return int(self.processor.piece_to_id(token))

    @property
    def end_of_text(self) -> int:
        return self.special_id(END_OF_TEXT)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; never a special one."""
        return list(self.processor.encode(text))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens have none. Bytes that are not valid UTF-8 become U+FFFD."""
        return str(self.processor.decode([int(id) for id in ids]))

    @cached_property
    def bytes_per_id(self) -> NDArray[np.int64]:
        """UTF-8 bytes of text behind each id: turns a loss per token into bits per byte."""
        return np.array([self._bytes_of(id) for id in range(self.vocab_size)], dtype=np.int64)

    @cached_property
    def begins_word(self) -> NDArray[np.bool_]:
        """Ids that may follow a complete word: those that begin with a space or a line break, and the end of the text."""
        return np.array([first in (" ", "\n") or id == self.end_of_text for id, first in enumerate(self._first_characters)])

    @cached_property
    def begins_word_or_punctuation(self) -> NDArray[np.bool_]:
        """Ids that may follow a complete word in forward text: a comma may, a letter would continue the word."""
        punctuation = np.array([unicodedata.category(first or "a")[0] == "P" for first in self._first_characters])
        allowed: NDArray[np.bool_] = self.begins_word | punctuation
        return allowed

    @cached_property
    def _first_characters(self) -> list[str]:
        """The first character of the text of each id; empty if it has none."""
        return [text[:1] for text in self.processor.decode([[id] for id in range(self.vocab_size)])]

    def _bytes_of(self, id: int) -> int:
        if self.processor.is_byte(id):
            return 1
        if self.processor.is_control(id) or self.processor.is_unknown(id):
            return 0
        return len(self.processor.id_to_piece(id).replace(SPACE, " ").encode())
