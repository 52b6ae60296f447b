"""Encoding many texts at once: gigatoken where it gives the ids of SentencePiece, else SentencePiece itself."""

import json
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tokens.tokenizer import SPACE, Tokenizer

EncoderName = Literal["gigatoken", "sentencepiece"]
# Texts in, as strings or in UTF-8; all their ids in one array and the number of ids of each text out.
Encoder = Callable[[list[str] | list[bytes]], tuple[NDArray[np.uint16], NDArray[np.int64]]]
MEMORY_BYTES = 64 << 20  # of text, after which gigatoken's memory of the words it has met starts anew


def make_encoder(tokenizer: Tokenizer, name: EncoderName) -> Encoder:
    """A function that encodes many texts with the library named."""
    return _gigatoken_encoder(tokenizer) if name == "gigatoken" else _sentencepiece_encoder(tokenizer)


def choose_encoder(tokenizer: Tokenizer, texts: list[str]) -> tuple[EncoderName, str]:
    """The faster encoder whose ids equal SentencePiece's on these texts, and a line that says which."""
    try:
        fast = make_encoder(tokenizer, "gigatoken")
    except ImportError:
        return "sentencepiece", "encoding with SentencePiece, about ten times slower than gigatoken: pip install gigatoken"
    ids, counts = fast(texts)
    true_ids, true_counts = make_encoder(tokenizer, "sentencepiece")(texts)
    if np.array_equal(ids, true_ids) and np.array_equal(counts, true_counts):
        return "gigatoken", f"encoding with gigatoken: same ids as SentencePiece on {len(texts):,} texts of this data ({len(ids):,} ids)"
    return "sentencepiece", "encoding with SentencePiece: gigatoken gave different ids on this data"


def _sentencepiece_encoder(tokenizer: Tokenizer) -> Encoder:
    def encode(texts: list[str] | list[bytes]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        encoded = tokenizer.processor.encode(texts)
        counts = np.array([len(ids) for ids in encoded], dtype=np.int64)
        return np.fromiter((id for ids in encoded for id in ids), dtype=np.uint16, count=int(counts.sum())), counts

    return encode


def _gigatoken_encoder(tokenizer: Tokenizer) -> Encoder:
    import gigatoken

    model = _as_tokenizer_json(tokenizer)
    fast, size = gigatoken.Tokenizer.from_json(model).backend, 0

    def encode(texts: list[str] | list[bytes]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        nonlocal fast, size
        size += sum(map(len, texts))
        if size > MEMORY_BYTES:
            fast, size = gigatoken.Tokenizer.from_json(model).backend, 0
        # One by one, because encode_batch forgets the words after each call, and imports awkward, which takes half a second.
        encoded = [fast.encode(text) for text in texts]
        counts = np.array([len(ids) for ids in encoded], dtype=np.int64)
        return np.concatenate([np.empty(0, np.uint16), *encoded], dtype=np.uint16, casting="unsafe"), counts

    return encode


def _as_tokenizer_json(tokenizer: Tokenizer) -> str:
    """The model as the tokenizer.json that gigatoken reads, with the control symbols out of reach of any text.

    gigatoken's own reader of SentencePiece models finds control symbols in text, as chat templates want it. Here a merge
    can only produce a normal piece, so text never becomes a control symbol or a raw byte piece.
    """
    processor = tokenizer.processor
    pieces = [processor.id_to_piece(id) for id in range(tokenizer.vocab_size)]
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
            "added_tokens": _line_break(tokenizer, normal),
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


def _line_break(tokenizer: Tokenizer, normal: Iterable[str]) -> list[dict[str, Any]]:
    """The line break, which no piece crosses, as a token of its own: gigatoken then remembers the words on both sides, not the pair."""
    if any("\n" in piece for piece in normal):
        return []
    id = tokenizer.processor.piece_to_id("<0x0A>")
    return [{"id": id, "content": "\n", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}]
