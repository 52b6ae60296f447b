"""Owns turning documents into a data folder: the tokenizer, the encoding of a chunk, the steps of preprocess_xcoax.py."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import Order, PreprocessConfig
from formats.input_files import DOCUMENT_ENDINGS
from formats.shards import Dataset, ShardWriter
from formats.utf8 import decode_utf8
from preprocessing.chunks import Chunk, read_chunks
from preprocessing.earlier_data import recorded_revision
from preprocessing.given_tokenizer import load_given_tokenizer
from preprocessing.journal import ChunkRecord
from preprocessing.parquet_chunks import plan_chunks
from preprocessing.pipeline import Recipe, open_journal, output_settings, write_dataset
from preprocessing.sources import Document, open_documents, sample_text
from preprocessing.split import text_hash
from preprocessing.workers import prepare_workers
from system.escapes import tell
from system.files import atomic_write
from tokens.encoders import Encoder, EncoderName, make_encoder
from tokens.reversal import reorder, reorder_all
from tokens.tokenizer import Tokenizer
from tokens.tokenizer_training import train_tokenizer

BATCH_BYTES = 1 << 20  # text that a worker encodes at once


@dataclass(frozen=True)
class EncodeDocuments:
    """Shuffles, reverses and encodes the documents of a chunk, and writes a training and a validation shard. Sent to worker processes."""

    tokenizer_model: bytes
    encoder_name: EncoderName
    order: Order
    held_out_below: int  # documents with a smaller hash go to validation
    split_parts: bool  # decide for each part of a document
    seed: int

    def __call__(self, chunk: Chunk[Document], folder: Path) -> ChunkRecord:
        documents = list(chunk.items)
        counts = Counter({"parts of cut documents": sum(document.continues for document in documents)})
        with (
            ShardWriter(folder, f"train_{chunk.number:05d}.bin") as train,
            ShardWriter(folder, f"val_{chunk.number:05d}.bin") as val,
        ):
            for batch in self._batches(documents, chunk.number, counts):
                for writer, texts in zip((train, val), batch, strict=True):
                    writer.append(self._encode(texts), len(texts), sum(map(len, texts)))
            return ChunkRecord({"train": train.finish(), "val": val.finish()}, dict(+counts), chunk.end)

    def _batches(self, documents: list[Document], number: int, counts: Counter[str]) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """The texts that are not skipped, in the order of the shards: those for training and those held out."""
        batch: tuple[list[bytes], list[bytes]] = [], []
        size = 0
        for index in np.random.default_rng([self.seed, number]).permutation(len(documents)).tolist():
            document = documents[index]
            text = decode_utf8(document.text)
            if document.text is None:
                counts[f"skipped: {document.trouble or 'not text'}"] += 1
            elif text is None:
                counts["skipped: invalid UTF-8"] += 1
            elif not text or text.isspace():
                counts["skipped: empty"] += 1
            else:
                batch[split_hash(document, self.split_parts) < self.held_out_below].append(document.text)
                size += len(document.text)
                if size >= BATCH_BYTES:
                    yield batch
                    batch, size = ([], []), 0
        yield batch

    @cached_property
    def _encoder(self) -> Encoder:
        return make_encoder(self._tokenizer, self.encoder_name)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.tokenizer_model)

    def _encode(self, texts: list[bytes]) -> NDArray[np.uint16]:
        """The ids of all texts in one array, <|endoftext|> before each text."""
        ids, counts = self._encoder(reorder_all(texts, self.order))
        starts = np.cumsum(counts) - counts
        return np.insert(ids, starts, self._tokenizer.end_of_text)


def split_hash(document: Document, split_parts: bool) -> int:
    """The hash that puts a document in a split: that of its text or, for a part of one, of the first part."""
    if document.first_part_hash is not None and not split_parts:
        return document.first_part_hash
    return text_hash(document.text or b"")


def document_settings(config: PreprocessConfig) -> dict[str, Any]:
    """The settings that the bytes of the data folder depend on."""
    settings = output_settings(config, DOCUMENT_ENDINGS)
    if config.tokenizer:
        settings["tokenizer"] = load_given_tokenizer(config.tokenizer).sha256
    return settings


def preprocess_documents(config: PreprocessConfig, folder: Path, settings: dict[str, Any]) -> Dataset:
    """Make the data folder, or resume where an earlier run stopped."""
    if config.engine == "local":
        prepare_workers()
    journal = open_journal(folder, settings)
    source = open_documents(config, journal.revision or recorded_revision(config))
    # From the plan on, every chunk depends on the tokenizer in the folder; until then it is made again.
    tokenizer = Tokenizer.load(folder) if journal.plan() else make_tokenizer(config, folder, sample_text(source, config.sample_bytes))
    number, start = journal.resume_point()

    def texts_to_encode(document: Document) -> list[str]:
        text = decode_utf8(document.text)
        return [reorder(text, config.order)] if text else []

    recipe = Recipe(
        content="documents",
        chunks=plan_chunks(source, config, number, start)
        or read_chunks(source.read(start), source.names, number, start, config.num_chunks),
        tokenizer=tokenizer,
        source_revision=source.revision,
        split_hash=lambda document, parts: split_hash(document, parts) if decode_utf8(document.text) else None,
        texts_to_encode=texts_to_encode,
        make_encode_chunk=lambda encoder_name, bound, parts: EncodeDocuments(
            tokenizer.model, encoder_name, config.order, bound, parts, config.seed
        ),
        too_little_advice="Give more text, or cut long documents into more parts with a smaller --max-document-bytes, such as 20000.",
    )
    return write_dataset(journal, config, recipe, settings)


def make_tokenizer(config: PreprocessConfig, folder: Path, sample: Iterator[str]) -> Tokenizer:
    """Train a tokenizer, or load the one that --tokenizer names, and write it into the folder."""
    if config.tokenizer:
        tokenizer = load_given_tokenizer(config.tokenizer)
    else:
        started = time.monotonic()
        tokenizer = train_tokenizer(sample, config.vocab_size)
        tell(f"trained a tokenizer of {config.vocab_size} ids in {time.monotonic() - started:.1f} s")
    with atomic_write(folder / "tokenizer.model") as file:
        file.write(tokenizer.model)
    return tokenizer
