"""Turn pairs of instruction and response into token shards: clean, cut what is too long, reverse the words, encode, write.

    python preprocess_instruct.py --vocab-size 8888
    python preprocess_instruct.py --input my_pairs.jsonl --data-dir data/my-pairs --tokenizer data/xcoax

A pair is a row with instruction (or prompt), output (or response, completion) and perhaps input (or context); or with
messages. The tokenizer is that of the model to tune. Stop it whenever you like: the same command goes on where it stopped.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config import InstructConfig
from corpus import Position, open_pairs
from disk import claim, replacing
from errors import BAD_FLAGS, UserError, run
from files import ROW_ENDINGS
from flags import describe, read_flags
from journal import Entry, finished
from layout import LEAST_RESPONSE, Layout
from pairs import COMPARED_CHARACTERS, Pair, normalise
from pipeline import Chunk, Recipe, begin, make, read_chunks, settings_of, text_hash, unused_flags
from presets import INSTRUCT_PRESETS
from shards import Dataset, ShardWriter, open_dataset
from text import Order, arrange
from tokenizer import Encoder, EncoderName, Tokenizer


@dataclass(frozen=True)
class EncodePairs:
    """The work of a worker process: pairs in a shuffled order, turned round, encoded, fitted, parted into training and validation."""

    tokenizer_model: bytes
    encoder_name: EncoderName
    order: Order
    held_out_below: int  # a pair whose response's hash is less belongs to validation
    seed: int
    block_size: int

    def __call__(self, chunk: Chunk[Pair], folder: Path) -> Entry:
        pairs = [chunk.items[index] for index in np.random.default_rng([self.seed, chunk.number]).permutation(len(chunk.items))]
        counts = Counter(f"skipped: {pair.trouble}" for pair in pairs if pair.trouble)
        pairs = [pair for pair in pairs if not pair.trouble]
        with (
            ShardWriter(folder, f"train_{chunk.number:05d}.bin") as train,
            ShardWriter(folder, f"val_{chunk.number:05d}.bin") as val,
        ):
            responses, instructions = (self._encode(texts) for texts in ([p.response for p in pairs], [p.instruction for p in pairs]))
            for pair, response, instruction in zip(pairs, responses, instructions, strict=True):
                text_bytes = pair.size
                room = self.block_size - self._layout.frame - len(instruction)
                if room < min(LEAST_RESPONSE, len(response)):
                    counts["skipped: instruction too long"] += 1
                    continue
                if len(response) > room:
                    counts["responses cut"] += 1
                    kept, text = self._layout.fit(pair.response, room)
                    response = np.array(kept, np.uint16)
                    text_bytes += len(text.encode()) - len(pair.response.encode())
                writer = val if text_hash(hashed_text(pair)) < self.held_out_below else train
                writer.append(self._layout.pair(response, instruction), 1, text_bytes)
            return Entry({"train": train.finish(), "val": val.finish()}, dict(+counts), chunk.end)

    def _encode(self, texts: list[str]) -> list[NDArray[np.uint16]]:
        ids, counts = self._encoder([arrange(text, self.order) for text in texts])
        return np.split(ids, np.cumsum(counts)[:-1]) if texts else []

    @cached_property
    def _encoder(self) -> Encoder:
        return self._layout.tokenizer.encoder(self.encoder_name)

    @cached_property
    def _layout(self) -> Layout:
        return Layout(Tokenizer(self.tokenizer_model), self.order)


def hashed_text(pair: Pair) -> bytes:
    """What decides on which side of the split a pair falls: its response, so that one response never sits on both.

    The beginning alone, because responses that differ behind it may be the same once they are cut.
    """
    return normalise(pair.response)[:COMPARED_CHARACTERS].encode()


def without_copies(rows: Iterator[tuple[list[Pair], Position]]) -> Iterator[tuple[list[Pair], Position]]:
    """The rows, with every pair but the first of its like marked as a copy."""
    seen: set[bytes] = set()
    for pairs, end in rows:
        marked = []
        for pair in pairs:
            digest = hashlib.blake2b("\0".join((pair.instruction, pair.response)).encode(), digest_size=16).digest()
            marked.append(Pair("", "", "exact copy of another") if digest in seen and not pair.trouble else pair)
            seen.add(digest)
        yield marked, end


def main() -> None:
    started = time.monotonic()
    config = read_flags(INSTRUCT_PRESETS, __doc__)
    folder = Path(config.data_dir)
    tokenizer = load_tokenizer(config)
    settings = {**settings_of(config, ROW_ENDINGS), "tokenizer": tokenizer.sha256}
    if dataset := finished(folder, "pairs", settings):
        print(f"{folder} is finished already: {dataset.summary()}")
        return
    print(describe(config, unused=unused_flags(config)))
    with claim(folder, "--data-dir"):
        dataset = make_dataset(config, folder, settings, tokenizer)
    print(f"{folder} is finished: {dataset.summary()}, {time.monotonic() - started:.0f} s")


def load_tokenizer(config: InstructConfig) -> Tokenizer:
    """The tokenizer of the pretrained model, from its data folder, its file, its checkpoint or the folder of that."""
    path = Path(config.tokenizer)
    checkpoint = path if path.suffix == ".pt" else path / "best_checkpoint.pt"
    if path.suffix == ".pt" or checkpoint.is_file():
        from checkpoint import load_checkpoint  # takes torch with it: seconds that the other ways do not need

        tokenizer = load_checkpoint(checkpoint).tokenizer
    else:
        tokenizer = Tokenizer.load(path if path.is_file() else open_dataset(path, content=None).folder)
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(f"--vocab-size {config.vocab_size}: {path} has {tokenizer.vocab_size} ids. Give that number", BAD_FLAGS)
    return tokenizer


def make_dataset(config: InstructConfig, folder: Path, settings: dict[str, Any], tokenizer: Tokenizer) -> Dataset:
    """All the steps, or those that an earlier run has left to do."""
    journal = begin(folder, settings)
    if not journal.plan():
        with replacing(folder / "tokenizer.model") as file:
            file.write(tokenizer.model)
    corpus = open_pairs(config, journal.revision)
    # Always from the start: what is a copy depends on all that comes before. Chunks that are done are not encoded again.
    rows = without_copies(corpus.read(Position(0, 0)))
    recipe = Recipe(
        content="pairs",
        chunks=read_chunks(rows, corpus.names, 0, Position(0, 0), config.num_chunks),
        tokenizer=tokenizer,
        revision=corpus.revision,
        hashed=lambda pair: None if pair.trouble else hashed_text(pair),
        texts=lambda pair: [] if pair.trouble else [arrange(text, config.order) for text in (pair.response, pair.instruction)],
        work=lambda encoder_name, bound: EncodePairs(tokenizer.model, encoder_name, config.order, bound, config.seed, config.block_size),
        more="Give more pairs with more different responses.",
    )
    return make(journal, config, recipe, settings)


if __name__ == "__main__":
    run(main)
