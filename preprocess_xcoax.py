"""Turn text into token shards: train the tokenizer, reverse the words, encode, write.

    python preprocess_xcoax.py --vocab-size 8888 --num-chunks 1000
    python preprocess_xcoax.py tinystories
    python preprocess_xcoax.py --input my_texts/ --data-dir data/mine --vocab-size 4096

Stop it whenever you like: the same command goes on where it stopped.
"""

import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import PREPROCESS_PRESETS, PreprocessConfig, describe, read_flags
from corpus import open_corpus
from disk import claim, replacing
from errors import BAD_FLAGS, UserError, run
from files import find_files
from pipeline import Chunk, Entry, Journal, encode_chunks, finished, read_chunks, refuse_other_settings
from shards import Dataset, Shard, ShardWriter, Split
from text import Order, arrange, decode
from tokenizer import Encoder, EncoderName, Tokenizer, prove_encoder, train_tokenizer

BATCH_BYTES = 16 << 20  # text that a worker encodes at a time
PROOF_BYTES = 2 << 20  # text on which the fast encoder is compared with SentencePiece
HASH_RANGE = 1 << 64


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

    def __call__(self, chunk: Chunk, folder: Path) -> Entry:
        counts = Counter({"parts of cut documents": chunk.parts})
        with (
            ShardWriter(folder, f"train_{chunk.number:05d}.bin") as train,
            ShardWriter(folder, f"val_{chunk.number:05d}.bin") as val,
        ):
            for batch in self._batches(chunk, counts):
                for writer, held_out in ((train, False), (val, True)):
                    documents = [document for document in batch if document.held_out == held_out]
                    ids = self._encode([arrange(document.text, self.order) for document in documents])
                    writer.append(ids, len(documents), sum(document.size for document in documents))
            shards: dict[Split, list[Shard]] = {"train": train.finish(), "val": val.finish()}
        return Entry(shards, dict(+counts), chunk.end)

    def _batches(self, chunk: Chunk, counts: Counter[str]) -> Iterator[list[Usable]]:
        batch: list[Usable] = []
        size = 0
        for index in np.random.default_rng([self.seed, chunk.number]).permutation(len(chunk.documents)):
            document = chunk.documents[index]
            text = decode(document)
            if document is None:
                counts["skipped: not text"] += 1
            elif text is None:
                counts["skipped: invalid UTF-8"] += 1
            elif not text or text.isspace():
                counts["skipped: empty"] += 1
            else:
                batch.append(Usable(text, len(document), text_hash(document) < self.held_out_below))
                size += len(document)
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


def text_hash(text: bytes) -> int:
    """A number below HASH_RANGE that depends on the text alone, so that copies of a text fall on one side of the split."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def unused_flags(config: PreprocessConfig) -> tuple[str, ...]:
    """The flags of the other kind of source."""
    return ("dataset", "subset", "split") if config.input else ("input",)


def settings_of(config: PreprocessConfig) -> dict[str, Any]:
    """What the output depends on. Files count by name and size, wherever they lie."""
    settings = asdict(config)
    for name in ("data_dir", "workers", "retries"):
        del settings[name]
    for name in unused_flags(config):
        del settings[name]
    if config.input:
        settings["input"] = [f"{file.name} ({file.stat().st_size:,} bytes)" for file in find_files(config.input)]
    if config.tokenizer:
        settings["tokenizer"] = Tokenizer.load(Path(config.tokenizer)).sha256
    return settings


def held_out_below(share: float, first_chunk: Chunk) -> int:
    """The bound on the hashes of held-out documents: the share, but never so low that a small corpus would have none."""
    smallest = min((text_hash(text) for text in first_chunk.documents if text and decode(text)), default=0)
    return max(round(share * HASH_RANGE), smallest + 1)


def main() -> None:
    started = time.monotonic()
    config = read_flags(PREPROCESS_PRESETS, __doc__)
    folder = Path(config.data_dir)
    settings = settings_of(config)
    if dataset := finished(folder, settings):
        print(f"{folder} is finished already: {summary(dataset)}")
        return
    print(describe(config, unused=unused_flags(config)))
    with claim(folder, "--data-dir"):
        dataset = make_dataset(config, folder, settings)
    print(f"{folder} is finished: {summary(dataset)}, {time.monotonic() - started:.0f} s")


def make_dataset(config: PreprocessConfig, folder: Path, settings: dict[str, Any]) -> Dataset:
    """All the steps, or those that an earlier run has left to do."""
    journal = Journal(folder)
    plan = journal.plan()
    if plan:
        refuse_other_settings(folder, plan["settings"], settings)
        print(f"going on with {folder}: {len(journal.entries)} chunks are done")
    corpus = open_corpus(config, plan["revision"] if plan else "")
    tokenizer = Tokenizer.load(folder) if plan else make_tokenizer(config, folder, corpus.sample(config.sample_bytes))
    chunks = read_chunks(corpus, *journal.resume_point(), config.num_chunks)
    first = next(chunks, None)
    if first is None and not journal.entries:
        raise UserError(f"no documents in {', '.join(config.input) or config.dataset}")
    if not plan:
        assert first is not None
        plan = {"settings": settings, "revision": corpus.revision, "held_out_below": held_out_below(config.val_share, first)}
        journal.write_plan(plan)
    if first is not None:
        texts = itertools.islice((text for text in map(decode, first.documents) if text), 1000)
        encoder_name, notice = prove_encoder(tokenizer, [arrange(text, config.order) for text in take(texts, PROOF_BYTES)])
        print(notice)
        work = EncodeDocuments(tokenizer.model, encoder_name, config.order, plan["held_out_below"], config.seed)
        rate = encode_chunks(journal, itertools.chain([first], chunks), work, config.workers)
        print(f"reversed, encoded and wrote {rate:.1f} MB of text a second with {config.workers} workers")
    meta = {"order": config.order, "vocab_size": tokenizer.vocab_size, "tokenizer_sha256": tokenizer.sha256}
    return journal.seal({**meta, "revision": plan["revision"], "settings": settings})


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


def take(texts: Iterator[str], limit: int) -> Iterator[str]:
    """Texts until their characters come to the limit."""
    for text in texts:
        yield text
        limit -= len(text)
        if limit <= 0:
            return


def summary(dataset: Dataset) -> str:
    """What a folder holds, on one line."""
    shards = dataset.shards("train") + dataset.shards("val")
    ids, size = sum(shard.ids for shard in shards), sum(shard.bytes for shard in shards)
    held_out = sum(shard.documents for shard in dataset.shards("val"))
    counts = "".join(f", {count:,} {what}" for what, count in dataset.meta["counts"].items())
    return (
        f"{sum(shard.documents for shard in shards):,} documents ({held_out:,} held out), {ids:,} tokens, "
        f"{size / ids:.2f} bytes per token, {dataset.order}{counts}"
    )


if __name__ == "__main__":
    run(main)
