"""Turn text into token shards: train the tokenizer, reverse the words, encode, write.

    python preprocess_xcoax.py --vocab-size 8888 --num-chunks 1000
    python preprocess_xcoax.py tinystories
    python preprocess_xcoax.py --input my_texts/ --data-dir data/mine --vocab-size 4096

Stop it whenever you like: the same command goes on where it stopped.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import PreprocessConfig
from corpus import Document, open_documents, sample
from disk import claim, replacing
from errors import BAD_FLAGS, UserError, run
from files import ENDINGS
from flags import describe, read_flags
from journal import Entry, finished
from pipeline import Chunk, Recipe, begin, make, read_chunks, settings_of, text_hash, unused_flags
from presets import PREPROCESS_PRESETS
from shards import Dataset, ShardWriter
from text import Order, arrange, decode
from tokenizer import Encoder, EncoderName, Tokenizer, train_tokenizer

BATCH_BYTES = 16 << 20  # text that a worker encodes at a time


class Usable(NamedTuple):
    """A document that can be encoded."""

    text: str
    size: int  # in bytes of UTF-8
    held_out: bool


@dataclass(frozen=True)
class EncodeDocuments:
    """The work of a worker process: documents in a shuffled order, turned round, encoded, parted into training and validation."""

    tokenizer_model: bytes
    encoder_name: EncoderName
    order: Order
    held_out_below: int  # a document whose hash is less belongs to validation
    seed: int

    def __call__(self, chunk: Chunk[Document], folder: Path) -> Entry:
        counts = Counter({"parts of cut documents": sum(document.continues for document in chunk.items)})
        with (
            ShardWriter(folder, f"train_{chunk.number:05d}.bin") as train,
            ShardWriter(folder, f"val_{chunk.number:05d}.bin") as val,
        ):
            for batch in self._batches(chunk, counts):
                for writer, held_out in ((train, False), (val, True)):
                    documents = [document for document in batch if document.held_out == held_out]
                    ids = self._encode([arrange(document.text, self.order) for document in documents])
                    writer.append(ids, len(documents), sum(document.size for document in documents))
            return Entry({"train": train.finish(), "val": val.finish()}, dict(+counts), chunk.end)

    def _batches(self, chunk: Chunk[Document], counts: Counter[str]) -> Iterator[list[Usable]]:
        batch: list[Usable] = []
        size = 0
        for index in np.random.default_rng([self.seed, chunk.number]).permutation(len(chunk.items)):
            document = chunk.items[index]
            text = decode(document.text)
            if document.text is None:
                counts["skipped: not text"] += 1
            elif text is None:
                counts["skipped: invalid UTF-8"] += 1
            elif not text or text.isspace():
                counts["skipped: empty"] += 1
            else:
                batch.append(Usable(text, document.size, text_hash(document.text) < self.held_out_below))
                size += document.size
                if size >= BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        yield batch

    @cached_property
    def _encoder(self) -> Encoder:
        return self._tokenizer.encoder(self.encoder_name)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self.tokenizer_model)

    def _encode(self, texts: list[str]) -> NDArray[np.uint16]:
        """The documents' ids in one row, <|endoftext|> before each."""
        ids, counts = self._encoder(texts)
        starts = np.cumsum(counts) - counts
        return np.insert(ids, starts, self._tokenizer.end_of_text)


def main() -> None:
    started = time.monotonic()
    config = read_flags(PREPROCESS_PRESETS, __doc__)
    folder = Path(config.data_dir)
    settings = settings_of(config, ENDINGS)
    if config.tokenizer:
        settings["tokenizer"] = Tokenizer.load(Path(config.tokenizer)).sha256
    if dataset := finished(folder, "documents", settings):
        print(f"{folder} is finished already: {dataset.summary()}")
        return
    print(describe(config, unused=unused_flags(config)))
    with claim(folder, "--data-dir"):
        dataset = make_dataset(config, folder, settings)
    print(f"{folder} is finished: {dataset.summary()}, {time.monotonic() - started:.0f} s")


def make_dataset(config: PreprocessConfig, folder: Path, settings: dict[str, Any]) -> Dataset:
    """All the steps, or those that an earlier run has left to do."""
    journal = begin(folder, settings)
    corpus = open_documents(config, journal.revision)
    tokenizer = Tokenizer.load(folder) if journal.plan() else make_tokenizer(config, folder, sample(corpus, config.sample_bytes))
    index, start = journal.resume_point()

    def texts(document: Document) -> list[str]:
        text = decode(document.text)
        return [arrange(text, config.order)] if text else []

    recipe = Recipe(
        content="documents",
        chunks=read_chunks(corpus.read(start), corpus.names, index, start, config.num_chunks),
        tokenizer=tokenizer,
        revision=corpus.revision,
        hashed=lambda document: document.text if decode(document.text) else None,
        texts=texts,
        work=lambda encoder_name, bound: EncodeDocuments(tokenizer.model, encoder_name, config.order, bound, config.seed),
        more="Give more text, or cut long documents into more with a smaller --max-document-bytes.",
    )
    return make(journal, config, recipe, settings)


def make_tokenizer(config: PreprocessConfig, folder: Path, sample: Iterator[str]) -> Tokenizer:
    """Train the tokenizer, or take the one that was named; either way it lies in the folder afterwards."""
    if config.tokenizer:
        tokenizer = Tokenizer.load(Path(config.tokenizer))
        if tokenizer.vocab_size != config.vocab_size:
            raise UserError(
                f"--vocab-size {config.vocab_size}: {config.tokenizer} has {tokenizer.vocab_size} ids. Give that number", BAD_FLAGS
            )
    else:
        started = time.monotonic()
        tokenizer = train_tokenizer(sample, config.vocab_size)
        print(f"trained a tokenizer of {config.vocab_size} ids in {time.monotonic() - started:.1f} s")
    with replacing(folder / "tokenizer.model") as file:
        file.write(tokenizer.model)
    return tokenizer


if __name__ == "__main__":
    run(main)
