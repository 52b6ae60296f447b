"""What a checkpoint is judged on: documents and pairs that it was not trained on, out of data folders and files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoint import Checkpoint, load_checkpoint
from config import Content, EvaluateConfig, PreprocessConfig, Stage
from corpus import Position, open_documents
from errors import BAD_FLAGS, UserError
from layout import LEAST_RESPONSE, Layout
from packing import Example, Examples
from pairs import COMPARED_CHARACTERS, Pair, fields_of_pairs, normalise, pair_of
from results import read_rows
from shards import SPLITS, Dataset, Documents, Split, open_dataset, spread
from text import arrange, decode
from tokenizer import Tokenizer

TRAINING_PAIRS = 100_000  # at most so many are looked at, evenly spread
POOL = 2_000  # held-out pairs, at most, whose instructions can be drawn as others, or twice as many as are asked for


class LeftOut(Exception):
    """Why something is not measured."""


class Source(NamedTuple):
    """Texts as a person reads them."""

    what: str
    texts: list[str]
    notes: list[str]


class Held(NamedTuple):
    """A pair as a person reads it, and in the ids of a model."""

    pair: Pair
    example: Example

    @property
    def instruction_ids(self) -> tuple[int, ...]:
        """Those of the instruction and of its end."""
        return tuple(self.example.ids[self.example.prompt :].tolist())


class HeldOutPairs(NamedTuple):
    """What a tuned model is judged on."""

    judged: list[Held]
    pool: list[Held]  # whose instructions can be drawn as others
    training: list[Pair]  # for what needs no model
    notes: list[str]


def held_out_documents(config: EvaluateConfig, checkpoints: Sequence[Checkpoint]) -> Source:
    """The validation documents of a data folder: the named one, or the one that the first checkpoint was pretrained on."""
    dataset = _open(config.data_dir, checkpoints[0], "pretraining")
    tokenizer = Tokenizer.load(dataset.folder)
    documents = Documents(dataset, "val", tokenizer.end_of_text)
    chosen = spread(len(documents), config.documents or len(documents)).tolist()
    texts = [arrange(tokenizer.decode(documents.read(index)), dataset.order) for index in chosen]
    notes = [f"{len(chosen):,} of the {len(documents):,} documents that {dataset.folder} holds out."]
    for checkpoint in checkpoints:
        try:
            same = _sizes(_open("", checkpoint, "pretraining")) == _sizes(dataset)
            trouble = "" if same else f"the data folder of its training holds other documents than {dataset.folder}"
        except (LeftOut, UserError) as error:
            trouble = f"the data folder of its training cannot be looked at ({error})"
        if trouble:
            notes.append(f"{checkpoint.path}: {trouble}, so these may have been in its training.")
    return Source("held-out documents", texts, notes)


def texts_of_files(inputs: tuple[str, ...]) -> Source:
    """The documents of files."""
    documents: list[list[bytes]] = []
    try:
        # One document, however long: what reads it cuts it into parts, which are put together again.
        for parts, _ in open_documents(PreprocessConfig(input=inputs)).read(Position(0, 0)):
            for part in parts:
                if not (part.continues and documents):
                    documents.append([])
                documents[-1].append(part.text or b"")
    except UserError as error:  # the flag has another name here
        raise UserError(str(error).replace("--input", "--text").replace(". Name one with --field", ""), error.exit_code) from error
    texts = [text for parts in documents if (text := decode(b"".join(parts)))]
    if not texts:
        raise UserError(f"--text {' '.join(inputs)}: no text in it", BAD_FLAGS)
    lost = len(documents) - len(texts)
    notes = [f"{len(texts):,} texts ({lost:,} others empty or not UTF-8); whether a model was trained on them is not known here."]
    return Source(inputs[0] + (f" and {len(inputs) - 1} more" if len(inputs) > 1 else ""), texts, notes)


def held_out_pairs(config: EvaluateConfig, checkpoint: Checkpoint) -> HeldOutPairs:
    """The pairs of a file or the validation pairs of a data folder: the named one, or the one that the checkpoint was tuned on."""
    if checkpoint.stage != "tuning":
        raise LeftOut(
            f"{checkpoint.path} was pretrained and not tuned: it does not know instructions. "
            f"Tune it with: python finetune_xcoax.py --model-path {checkpoint.path}"
        )
    if config.pairs:
        source, pairs = config.pairs, _pairs_in(config.pairs)
    else:
        dataset = _open(config.pairs_dir, checkpoint, "tuning")
        source, pairs = f"{dataset.folder}, whose meta.json counts what was lost before", _pairs_of(dataset, "val")
    lost = Counter(f"left out: {pair.trouble}" for pair in pairs if pair.trouble)
    pairs = [pair for pair in pairs if not pair.trouble]
    layout = Layout(checkpoint.tokenizer, checkpoint.order)
    pool: list[Held] = []
    for index in spread(len(pairs), max(POOL, config.max_pairs, 2 * max(config.candidates))).tolist():
        example, what = _example(pairs[index], layout, checkpoint.model_config.block_size)
        pool += [Held(pairs[index], example)] if example else []
        lost[what] += bool(what)
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(lost.items()) if what) or "none cut or left out here"
    if not pool:
        raise UserError(f"{source}: no usable pairs ({counts})", BAD_FLAGS)
    judged = [pool[index] for index in spread(len(pool), config.max_pairs).tolist()]
    looked_at = len(pool) + sum(count for what, count in lost.items() if what.startswith("left out"))
    notes = [f"{len(pool):,} of {looked_at:,} pairs can be used ({counts}); of {source}."]
    training: list[Pair] = []
    try:
        dataset = _open("", checkpoint, "tuning")
        training = _pairs_of(dataset, "train", TRAINING_PAIRS)
        # As the split of the data knows responses: by how they begin, however they are spaced or cut.
        known = {(pair.instruction, normalise(pair.response)[:COMPARED_CHARACTERS]) for pair in training}
        seen = sum((one.pair.instruction, normalise(one.pair.response)[:COMPARED_CHARACTERS]) in known for one in judged)
        notes.append(f"{seen:,} of those judged are among the {len(training):,} training pairs that were looked at.")
        if dataset.fingerprint not in str(checkpoint.identity.get("the pairs", "")):
            notes.append(f"{dataset.folder} is not, or not surely, what the model was tuned on: it may have been made anew since.")
    except (LeftOut, UserError) as error:
        notes.append(f"Without training pairs to compare with, so these may have been among them: {error}")
    return HeldOutPairs(judged, pool, training, notes)


def _open(folder: str, checkpoint: Checkpoint, stage: Stage) -> Dataset:
    """The data folder that was named, or the one that the checkpoint has from that stage of its training."""
    content: Content = "documents" if stage == "pretraining" else "pairs"
    if folder:
        return open_dataset(Path(folder), content)
    settings = checkpoint.train_config
    try:
        if stage == "pretraining" and checkpoint.stage == "tuning":
            settings = load_checkpoint(Path(settings["model_path"])).train_config
        return open_dataset(Path(settings["data_dir"]), content)
    except KeyError as error:
        raise LeftOut(f"{checkpoint.path} does not say what it was trained on") from error
    except UserError as error:
        raise LeftOut(str(error)) from error


def _sizes(dataset: Dataset) -> list[tuple[int, int]]:
    """Documents and bytes of text of every shard: alike in twins that differ only in their word order."""
    return [(shard.documents, shard.bytes) for split in SPLITS for shard in dataset.shards(split)]


def _pairs_of(dataset: Dataset, split: Split, limit: int | None = None) -> list[Pair]:
    layout = Layout(Tokenizer.load(dataset.folder), dataset.order)
    examples = Examples(dataset, split, layout)
    chosen = (examples[index] for index in spread(len(examples), limit or len(examples)).tolist())
    parts = ((example.ids[example.prompt :], example.ids[: example.prompt]) for example in chosen)
    return [Pair(layout.read(instruction), layout.read(response)) for instruction, response in parts]


def _pairs_in(path: str) -> list[Pair]:
    rows = list(read_rows(path, lambda fields: fields_of_pairs(fields, path)))
    return [Pair("", "", row.partition(":")[0]) if isinstance(row, str) else pair_of(row) for row in rows]


def _example(pair: Pair, layout: Layout, block_size: int) -> tuple[Example | None, str]:
    """A pair in ids, as tuning has it, and what was lost of it."""
    instruction = layout.tokenizer.encode(arrange(pair.instruction, layout.order))
    room = block_size - layout.frame - len(instruction)
    response, kept = layout.fit(pair.response, room) if room > 0 else ([], "")
    is_cut = kept != pair.response
    if is_cut and room < LEAST_RESPONSE:
        return None, "left out: instruction too long"
    ids = layout.pair(np.array(response, np.uint16), np.array(instruction, np.uint16)).astype(np.int64)
    return Example(ids, len(layout.prompt(response))), "responses cut" if is_cut else ""
