"""Owns turning instruction pairs into a data folder: the encoding of a chunk, copies, the steps of preprocess_instruct.py."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import InstructConfig, Order
from formats.input_files import ROW_ENDINGS
from formats.pairs import COMPARED_CHARACTERS, Pair, normalize_response
from formats.shards import Dataset, ShardWriter
from preprocessing.chunks import Chunk, read_chunks
from preprocessing.earlier_data import recorded_revision
from preprocessing.journal import ChunkRecord
from preprocessing.pipeline import Recipe, open_journal, output_settings, write_dataset
from preprocessing.sources import Position, open_pairs
from preprocessing.split import text_hash
from preprocessing.workers import prepare_workers
from system.files import atomic_write
from tokens.encoders import Encoder, EncoderName, make_encoder
from tokens.prompt_format import PromptFormat
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer

TOO_LONG = "skipped: instruction too long"


@dataclass(frozen=True)
class EncodePairs:
    """Shuffles, reverses, encodes and fits the pairs of a chunk, and writes a training and a validation shard. Sent to worker processes."""

    tokenizer_model: bytes
    encoder_name: EncoderName
    order: Order
    held_out_below: int  # pairs whose response has a smaller hash go to validation
    seed: int
    block_size: int

    def __call__(self, chunk: Chunk[Pair], folder: Path) -> ChunkRecord:
        in_order = list(chunk.items)
        pairs = [in_order[index] for index in np.random.default_rng([self.seed, chunk.number]).permutation(len(in_order))]
        counts = Counter(f"skipped: {pair.trouble}" for pair in pairs if pair.trouble)
        counts += Counter({TOO_LONG: sum(self._is_too_long(pair.instruction) for pair in pairs)})
        pairs = [pair for pair in pairs if not pair.trouble and not self._is_too_long(pair.instruction)]
        with (
            ShardWriter(folder, f"train_{chunk.number:05d}.bin") as train,
            ShardWriter(folder, f"val_{chunk.number:05d}.bin") as val,
        ):
            # A response that is cut in any case is encoded only as far as it may fit.
            responses = self._encode(["" if self._is_too_long(pair.response) else pair.response for pair in pairs])
            instructions = self._encode([pair.instruction for pair in pairs])
            for pair, response, instruction in zip(pairs, responses, instructions, strict=True):
                encoded = response if len(response) else None
                fitted = self._prompt_format.fit_beside(instruction, pair.response, self.block_size, encoded)
                if fitted is None:
                    counts[TOO_LONG] += 1
                    continue
                counts["responses cut"] += fitted.is_cut
                writer = val if text_hash(split_text(pair)) < self.held_out_below else train
                text_bytes = len(pair.instruction.encode()) + len(fitted.text.encode())
                writer.append(self._prompt_format.example(fitted.ids, instruction), 1, text_bytes)
            return ChunkRecord({"train": train.finish(), "val": val.finish()}, dict(+counts), chunk.end)

    def _is_too_long(self, text: str) -> bool:
        return self._prompt_format.is_too_long(text, self.block_size)

    def _encode(self, texts: list[str]) -> list[NDArray[np.uint16]]:
        ids, counts = self._encoder([reorder(text, self.order) for text in texts])
        return np.split(ids, np.cumsum(counts)[:-1]) if texts else []

    @cached_property
    def _encoder(self) -> Encoder:
        return make_encoder(self._prompt_format.tokenizer, self.encoder_name)

    @cached_property
    def _prompt_format(self) -> PromptFormat:
        return PromptFormat(Tokenizer(self.tokenizer_model), self.order)


def split_text(pair: Pair) -> bytes:
    """The text whose hash puts a pair in a split: the beginning of its response, so that a response is never on both sides.

    Only the beginning, because responses that differ after it may be equal once they are cut.
    """
    return normalize_response(pair.response)[:COMPARED_CHARACTERS].encode()


def mark_copies(rows: Iterator[tuple[list[Pair], Position]]) -> Iterator[tuple[list[Pair], Position]]:
    """The rows, in which every pair that equals an earlier one is marked as a copy."""
    seen: set[bytes] = set()
    for pairs, end in rows:
        marked = []
        for pair in pairs:
            digest = hashlib.blake2b("\0".join((pair.instruction, pair.response)).encode(), digest_size=16).digest()
            marked.append(Pair("", "", "exact copy of another") if digest in seen and not pair.trouble else pair)
            seen.add(digest)
        yield marked, end


def pair_settings(config: InstructConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The settings that the bytes of the data folder depend on."""
    return {**output_settings(config, ROW_ENDINGS), "tokenizer": tokenizer.sha256}


def preprocess_pairs(config: InstructConfig, folder: Path, settings: dict[str, Any], tokenizer: Tokenizer) -> Dataset:
    """Make the data folder, or resume where an earlier run stopped."""
    if config.engine == "local":
        prepare_workers()
    journal = open_journal(folder, settings)
    if not journal.plan():
        with atomic_write(folder / "tokenizer.model") as file:
            file.write(tokenizer.model)
    source = open_pairs(config, journal.revision or recorded_revision(config))
    # A resumed run reads from the start too, because copies depend on all earlier rows; it does not encode finished chunks again.
    start = Position(0, 0)
    recipe = Recipe(
        content="pairs",
        chunks=read_chunks(mark_copies(source.read(start)), source.names, 0, start, config.num_chunks),
        tokenizer=tokenizer,
        source_revision=source.revision,
        split_hash=lambda pair, _: None if pair.trouble else text_hash(split_text(pair)),
        texts_to_encode=lambda pair: [] if pair.trouble else [reorder(text, config.order) for text in (pair.response, pair.instruction)],
        make_encode_chunk=lambda encoder_name, bound, _: EncodePairs(
            tokenizer.model, encoder_name, config.order, bound, config.seed, config.block_size
        ),
        too_little_advice="Give more pairs with more different responses.",
    )
    return write_dataset(journal, config, recipe, settings)
