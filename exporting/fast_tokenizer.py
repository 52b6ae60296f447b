"""Our tokenizer in the words of the `tokenizers` library: a SentencePiece BPE model as tokenizer.json."""

from typing import Any

from config import Stage
from exporting.chat_template import CHAT_TEMPLATE
from tokens.prompt_format import PromptFormat
from tokens.tokenizer import END_OF_TEXT, SPACE, Tokenizer


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of tokenizer.json. It gives the ids of SentencePiece, after the <|endoftext|> with which a document begins."""
    processor = tokenizer.processor
    pieces = [processor.id_to_piece(id) for id in range(tokenizer.vocab_size)]
    special = [id for id in range(len(pieces)) if processor.is_control(id) or processor.is_unknown(id)]
    begin = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}
    texts = [[{"Sequence": {"id": name, "type_id": 0}}] for name in "AB"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id, "content": pieces[id], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for id in special
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, *texts[0]],
            "pair": [begin, *texts[0], *texts[1]],
            "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [tokenizer.end_of_text], "tokens": [END_OF_TEXT]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                # Bytes that are characters by themselves: else an incomplete character beside a line break would spoil that too.
                *({"type": "Replace", "pattern": {"String": f"<0x{byte:02X}>"}, "content": chr(byte)} for byte in range(128)),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": processor.id_to_piece(processor.unk_id()),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: id for id, piece in enumerate(pieces)},
            "merges": _merges(tokenizer, pieces),
        },
    }


def tokenizer_config(tokenizer: Tokenizer, stage: Stage, block_size: int) -> dict[str, Any]:
    """The contents of tokenizer_config.json."""
    processor = tokenizer.processor
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": processor.id_to_piece(stop_ids(tokenizer, stage)[0]),
        "pad_token": processor.id_to_piece(processor.pad_id()),
        "unk_token": processor.id_to_piece(processor.unk_id()),
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    return {**config, "chat_template": CHAT_TEMPLATE} if stage == "tuning" else config


def stop_ids(tokenizer: Tokenizer, stage: Stage) -> list[int]:
    """The ids that end a text, the usual one first."""
    if stage == "pretraining":
        return [tokenizer.end_of_text]
    return [*PromptFormat(tokenizer, "backward").after_instruction, tokenizer.end_of_text]


def _merges(tokenizer: Tokenizer, pieces: list[str]) -> list[list[str]]:
    """Every way to make a piece of two, in the order in which SentencePiece merges: by score."""
    processor = tokenizer.processor
    normal = {
        piece: id
        for id, piece in enumerate(pieces)
        if not (processor.is_byte(id) or processor.is_control(id) or processor.is_unknown(id) or processor.is_unused(id))
    }
    splits = [
        (-processor.get_score(id), id, split, piece[:split], piece[split:])
        for piece, id in normal.items()
        for split in range(1, len(piece))
        if piece[:split] in normal and piece[split:] in normal
    ]
    return [[left, right] for *_, left, right in sorted(splits)]
