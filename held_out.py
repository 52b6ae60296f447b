"""What a checkpoint is judged on: documents and pairs that it was not trained on, out of data folders and files."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoint import Checkpoint, load_checkpoint
from config import Content, EvaluateConfig, PreprocessConfig, Stage
from corpus import Position, open_documents
from errors import BAD_FLAGS, UserError
from layout import LEAST_RESPONSE, Layout
from packing import Example, Examples
from pairs import Pair, fields_of_pairs, pair_of
from results import read_rows
from shards import Dataset, Documents, Split, open_dataset, spread
from text import arrange, decode
from tokenizer import Tokenizer

TRAINING_PAIRS = 100_000  # at most so many are looked at, evenly spread
POOL = 20_000  # held-out pairs, at most, whose instructions can be drawn


class LeftOut(Exception):
    """Why something is not measured, though nobody asked for it by name."""


class Source(NamedTuple):
    """Texts as a person reads them."""

    what: str
    texts: list[str]
    notes: list[str]


class HeldOutPairs(NamedTuple):
    """Pairs in the ids of a model."""

    examples: list[Example]  # that are scored and written for
    pool: list[Example]  # whose instructions can be drawn as others
    training: list[Pair]  # for what needs no model
    notes: list[str]


def held_out_documents(config: EvaluateConfig, checkpoint: Checkpoint, others: Iterable[Checkpoint]) -> Source:
    """The validation documents of a data folder: the named one, or the one that the checkpoint was pretrained on."""
    dataset = _open(config.data_dir, checkpoint, "pretraining")
    tokenizer = Tokenizer.load(dataset.folder)
    documents = Documents(dataset, "val", tokenizer.end_of_text)
    chosen = spread(len(documents), config.documents or len(documents)).tolist()
    texts = [arrange(tokenizer.decode(documents.read(index)), dataset.order) for index in chosen]
    notes = [f"{len(chosen):,} of the {len(documents):,} documents that {dataset.folder} holds out."]
    for other in others:
        try:
            same = _held_out(_open("", other, "pretraining")) == _held_out(dataset)
            trouble = "" if same else f"its own data folder holds out other documents than {dataset.folder}"
        except (LeftOut, UserError) as error:
            trouble = f"its data folder cannot be looked at ({error})"
        if trouble:
            notes.append(f"{other.path}: {trouble}, so these may have been in its training.")
    return Source("held-out documents", texts, notes)


def texts_of_files(inputs: tuple[str, ...]) -> Source:
    """The documents of files."""
    corpus = open_documents(PreprocessConfig(input=inputs))
    parts = [decode(document.text) for documents, _ in corpus.read(Position(0, 0)) for document in documents]
    texts = [text for text in parts if text]
    if not texts:
        raise UserError(f"--text {' '.join(inputs)}: no text in it", BAD_FLAGS)
    notes = [f"{len(texts):,} documents; whether the model was trained on them is not known here."]
    if len(parts) > len(texts):
        notes.append(f"{len(parts) - len(texts):,} others were empty or not UTF-8.")
    return Source(", ".join(inputs), texts, notes)


def held_out_pairs(config: EvaluateConfig, checkpoint: Checkpoint) -> HeldOutPairs:
    """The pairs of a file or the validation pairs of a data folder: the named one, or the one that the checkpoint was tuned on."""
    if checkpoint.stage != "tuning":
        raise LeftOut(
            f"{checkpoint.path} was pretrained and not tuned: it does not know instructions. "
            f"Tune it with: python finetune_xcoax.py --model-path {checkpoint.path}"
        )
    layout = Layout(checkpoint.tokenizer, checkpoint.order)
    try:
        dataset = _open(config.pairs_dir, checkpoint, "tuning")
        training, trouble = _pairs_of(dataset, "train", TRAINING_PAIRS), ""
    except (LeftOut, UserError) as error:
        if not config.pairs:
            raise
        training, trouble = [], f"Without training pairs to compare with: {error}"
    rows = _pairs_in(config.pairs) if config.pairs else _pairs_of(dataset, "val", POOL)
    lost = Counter(f"left out: {pair.trouble}" for pair in rows if pair.trouble)
    rows = [pair for pair in rows if not pair.trouble]
    pool: list[Example] = []
    for index in spread(len(rows), POOL).tolist():
        example, what = _example(rows[index], layout, checkpoint.model_config.block_size)
        pool += [example] if example else []
        lost[what] += bool(what)
    source = config.pairs or f"{dataset.folder}, held out"
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(lost.items()) if what) or "none cut or left out"
    if not pool:
        raise UserError(f"{source}: no usable pairs ({counts})", BAD_FLAGS)
    examples = [pool[index] for index in spread(len(pool), config.max_pairs).tolist()]
    notes = [f"From {source}: {len(pool):,} usable pairs ({counts})."]
    return HeldOutPairs(examples, pool, training, notes + ([trouble] if trouble else []))


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
        raise LeftOut(f"{error}; or name another folder with {'--data-dir' if stage == 'pretraining' else '--pairs-dir'}") from error


def _held_out(dataset: Dataset) -> tuple[int, int]:
    """How many documents and bytes of text are held out: alike in twins that differ only in their word order."""
    shards = dataset.shards("val")
    return sum(shard.documents for shard in shards), sum(shard.bytes for shard in shards)


def _pairs_of(dataset: Dataset, split: Split, limit: int) -> list[Pair]:
    layout = Layout(Tokenizer.load(dataset.folder), dataset.order)
    examples = Examples(dataset, split, layout)
    chosen = (examples[index] for index in spread(len(examples), limit).tolist())
    parts = ((example.ids[example.prompt :], example.ids[: example.prompt]) for example in chosen)
    return [Pair(*(arrange(layout.tokenizer.decode(ids), dataset.order) for ids in texts)) for texts in parts]


def _pairs_in(path: str) -> list[Pair]:
    rows = list(read_rows(path, lambda fields: fields_of_pairs(fields, path)))
    return [Pair("", "", "not JSON or not text") if isinstance(row, str) else pair_of(row) for row in rows]


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
