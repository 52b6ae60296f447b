"""Training and using the SentencePiece model; the special ids; the bytes of text that an id stands for."""

import hashlib
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from config import MIN_VOCAB_SIZE
from errors import BAD_FLAGS, UserError

END_OF_TEXT = "<|endoftext|>"
# Control symbols: no text encodes to one of them, however it is spelled. Only code puts them in.
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
SPACE = "▁"  # how SentencePiece writes a space

EncoderName = Literal["gigatoken", "sentencepiece"]
# Texts in; their ids one after another and the number of ids of each text out.
Encoder = Callable[[list[str]], tuple[NDArray[np.uint16], NDArray[np.int64]]]


class Tokenizer:
    """A SentencePiece model, held as the bytes of its file so that shards and checkpoints can carry it."""

    def __init__(self, model: bytes, name: str = "the tokenizer") -> None:
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"{name} is not a SentencePiece model") from error
        for token in SPECIAL_TOKENS:
            if not self._processor.is_control(self._processor.piece_to_id(token)):
                raise UserError(f"{name} has no control symbol {token}. Train one with: python preprocess_xcoax.py")
        if not any(self._processor.is_byte(id) for id in range(self.vocab_size)):
            raise UserError(f"{name} has no byte fallback, so it would lose text. Train one with: python preprocess_xcoax.py")

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.model, or the one in a data folder."""
        file = path / "tokenizer.model" if path.is_dir() else path
        try:
            return cls(file.read_bytes(), str(file))
        except OSError as error:
            raise UserError(f"no tokenizer at {file}: {error.strerror}", BAD_FLAGS) from error

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size())

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    def special_id(self, token: str) -> int:
        assert token in SPECIAL_TOKENS, token
        return int(self._processor.piece_to_id(token))

    @property
    def end_of_text(self) -> int:
        return self.special_id(END_OF_TEXT)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; never a special one."""
        return list(self._processor.encode(text))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special ones stand for no text. Bytes that are no UTF-8 become U+FFFD."""
        return str(self._processor.decode([int(id) for id in ids]))

    @cached_property
    def bytes_per_id(self) -> NDArray[np.int64]:
        """UTF-8 bytes of text that each id stands for: what turns a loss per token into bits per byte."""
        return np.array([self._bytes_of(id) for id in range(self.vocab_size)], dtype=np.int64)

    @cached_property
    def begins_word(self) -> NDArray[np.bool_]:
        """Which ids may stand after a whole word: a space, a line break, or the end of the text, and what begins with one."""
        return np.array([self.decode([id])[:1] in (" ", "\n") or id == self.end_of_text for id in range(self.vocab_size)])

    def _bytes_of(self, id: int) -> int:
        if self._processor.is_byte(id):
            return 1
        if self._processor.is_control(id) or self._processor.is_unknown(id):
            return 0
        return len(self._processor.id_to_piece(id).replace(SPACE, " ").encode())

    def encoder(self, name: EncoderName) -> Encoder:
        """A function that encodes many texts at once, by the library named."""
        return self._gigatoken_encoder() if name == "gigatoken" else self._encode_all

    def _encode_all(self, texts: list[str]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        rows = self._processor.encode(texts)
        counts = np.array([len(row) for row in rows], dtype=np.int64)
        return np.fromiter((id for row in rows for id in row), dtype=np.uint16, count=int(counts.sum())), counts

    def _gigatoken_encoder(self) -> Encoder:
        import awkward  # comes with gigatoken
        import gigatoken

        fast = gigatoken.Tokenizer.from_json(self._as_tokenizer_json())

        def encode(texts: list[str]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
            rows = fast.encode_batch(texts, parallel=False)  # the processes of a run are its parallelism
            ids = awkward.to_numpy(awkward.flatten(rows)).astype(np.uint16)
            return ids, awkward.to_numpy(awkward.num(rows)).astype(np.int64)

        return encode

    def _as_tokenizer_json(self) -> str:
        """The model in the form gigatoken reads, with the control symbols out of the reach of any text.

        gigatoken's own reader of SentencePiece models finds control symbols in text, as chat templates want it. Here a
        merge may only make a normal piece, so that text can become neither a control symbol nor a raw byte piece.
        """
        processor = self._processor
        pieces = [processor.id_to_piece(id) for id in range(self.vocab_size)]
        normal = {
            piece: processor.get_score(id)
            for id, piece in enumerate(pieces)
            if not (processor.is_control(id) or processor.is_byte(id) or processor.is_unknown(id))
        }
        splits = ((score, piece[:cut], piece[cut:]) for piece, score in normal.items() for cut in range(1, len(piece)))
        merges = sorted(((score, left, right) for score, left, right in splits if left in normal and right in normal), key=lambda m: -m[0])
        return json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
                "model": {
                    "type": "BPE",
                    "unk_token": pieces[processor.unk_id()],
                    "fuse_unk": True,
                    "byte_fallback": True,
                    "vocab": {piece: id for id, piece in enumerate(pieces)},
                    "merges": [(left, right) for _, left, right in merges],
                },
            }
        )


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-pair model of exactly `vocab_size` ids that gives every text back unchanged."""
    lines = [line for text in texts for line in text.split("\n") if line]  # no piece holds a line break: reversal parts what it joins
    if not lines:
        raise UserError("no usable text in the source: nothing to train the tokenizer on")
    try:
        return Tokenizer(_train(lines, vocab_size))
    except RuntimeError as error:
        if limit := re.search(r"value <= (\d+)", str(error)):
            raise UserError(
                f"--vocab-size {vocab_size}: the sample of text is enough for {limit[1]} at most. Give more text or a smaller number",
                BAD_FLAGS,
            ) from error
        if "required_chars" not in str(error):
            raise
    # More different characters than ids: half of the room goes to the commonest, the others become bytes.
    room = (vocab_size - MIN_VOCAB_SIZE) // 2
    common = {character for character, _ in Counter(itertools.chain.from_iterable(lines)).most_common(max(room, 1))}
    kept = ["".join(character if character in common else "\n" for character in line) for line in lines]
    return Tokenizer(_train([part for line in kept for part in line.split("\n") if part], vocab_size))


def _train(lines: list[str], vocab_size: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        character_coverage=0.9999,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        byte_fallback=True,
        control_symbols=list(SPECIAL_TOKENS),
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        max_sentence_length=1 << 30,
        num_threads=2,  # it is written into the model, so it may not depend on the machine
        minloglevel=2,
    )
    return model.getvalue()


def prove_encoder(tokenizer: Tokenizer, texts: list[str]) -> tuple[EncoderName, str]:
    """The fastest library that gives the ids of SentencePiece on these texts, and a line that says so."""
    try:
        fast = tokenizer.encoder("gigatoken")
    except ImportError:
        return "sentencepiece", "encoding with SentencePiece, about ten times slower than gigatoken: pip install gigatoken"
    ids, counts = fast(texts)
    true_ids, true_counts = tokenizer.encoder("sentencepiece")(texts)
    if np.array_equal(ids, true_ids) and np.array_equal(counts, true_counts):
        return "gigatoken", f"encoding with gigatoken: the ids of SentencePiece on {len(texts):,} texts of this data ({len(ids):,} ids)"
    return "sentencepiece", "encoding with SentencePiece: gigatoken gave other ids on this data"
