"""Training the tokenizer on a sample of text."""

import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable

import sentencepiece

from config import MIN_VOCAB_SIZE
from system.errors import BAD_FLAGS, UserError
from tokens.tokenizer import SPECIAL_TOKENS, Tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a BPE model of exactly `vocab_size` ids that decodes every text back unchanged."""
    lines = [line for text in texts for line in text.split("\n") if line]  # no piece holds a line break: word reversal would tear it apart
    if not lines:
        raise UserError("no usable text in the source: nothing to train the tokenizer on. Check --input, or --dataset, and --field")
    try:
        return Tokenizer(_train(lines, vocab_size))
    except RuntimeError as error:
        if limit := _largest_size(error):
            raise UserError(
                f"--vocab-size {vocab_size}: this text supports at most {limit}. Use more text or a smaller vocabulary",
                BAD_FLAGS,
            ) from error
        if "required_chars" not in str(error):
            raise
    # More distinct characters than ids: the most common get half of the free ids, or more where there are too few pairs to merge;
    # the others fall back to bytes.
    free = vocab_size - MIN_VOCAB_SIZE + 1
    count = max((free - 1) // 2, 1)
    while True:
        try:
            return Tokenizer(_train(_with_common_characters(lines, count), vocab_size))
        except RuntimeError as error:
            limit = _largest_size(error)
            if limit is None or count >= free:
                raise
            count = min(count + vocab_size - limit, free)


def _largest_size(error: RuntimeError) -> int | None:
    """The largest possible vocabulary, if SentencePiece says that this one is too large."""
    limit = re.search(r"value <= (\d+)", str(error))
    return int(limit[1]) if limit else None


def _with_common_characters(lines: list[str], count: int) -> list[str]:
    """The lines cut at all but the most common characters."""
    common = {character for character, _ in Counter(itertools.chain.from_iterable(lines)).most_common(count)}
    kept = ["".join(character if character in common else "\n" for character in line) for line in lines]
    return [part for line in kept for part in line.split("\n") if part]


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
        num_threads=2,  # stored in the model file, so it must not depend on the machine
        minloglevel=2,
    )
    return model.getvalue()
