"""Held-out data: the documents and pairs that a model is evaluated on, from data folders and files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config import Content, EvaluateConfig, PreprocessConfig, Stage
from formats.ancestry import began_with
from formats.batches import evenly_spaced
from formats.checkpoint import Checkpoint
from formats.document_reader import DocumentReader
from formats.pairs import COMPARED_CHARACTERS, Pair, normalize_response, pair_fields, pair_from_row
from formats.shards import Dataset, Split, open_dataset
from formats.tolerant_rows import read_rows_or_errors
from formats.utf8 import decode_utf8
from preprocessing.sources import Position, open_documents
from system.amounts import amount
from system.encodings import UTF8
from system.errors import BAD_FLAGS, UserError
from tokens.prompt_format import PromptFormat
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer
from training.examples import Example, Examples

MAX_TRAINING_PAIRS = 100_000  # read for comparison, evenly spaced
MIN_POOL_LIMIT = 2_000  # pairs whose instructions can be drawn as false candidates; more if the flags ask for more


class NotMeasured(Exception):
    """The reason why a section is left out."""


class HeldOutTexts(NamedTuple):
    """Texts to evaluate, in the order of a reader."""

    name: str
    corpus: str  # the same in short
    texts: list[str]
    notes: list[str]
    warnings: list[str]


class HeldOutPair(NamedTuple):
    """A pair as text and as token ids of a model."""

    pair: Pair
    example: Example

    @property
    def instruction(self) -> str:
        """The text of the instruction."""
        return self.pair.instruction

    @property
    def response(self) -> str:
        """The text of the whole response; in the example it may be cut."""
        return self.pair.response

    @property
    def instruction_ids(self) -> tuple[int, ...]:
        """The ids of the instruction and its end token."""
        return tuple(self.example.ids[self.example.prompt_length :].tolist())


class HeldOutPairs(NamedTuple):
    """Everything that a tuned model is evaluated on."""

    evaluated: list[HeldOutPair]
    pool: list[HeldOutPair]  # whose instructions can be drawn as false candidates; includes the evaluated ones
    training: list[Pair]  # for guesses that need no model
    source: str
    notes: list[str]
    warnings: list[str]


def read_held_out_documents(config: EvaluateConfig, checkpoint: Checkpoint) -> list[HeldOutTexts]:
    """The validation documents of each data folder in the flags, or of the one that the checkpoint was pretrained on."""
    datasets = [open_data(folder, checkpoint, "pretraining") for folder in tuple(filter(None, config.data_dir)) or ("",)]
    short = [dataset.folder.resolve().name for dataset in datasets]
    names = short if len(set(short)) == len(short) else [str(dataset.folder) for dataset in datasets]
    return [_read_documents(config, dataset, name) for dataset, name in zip(datasets, names, strict=True)]


def _read_documents(config: EvaluateConfig, dataset: Dataset, name: str) -> HeldOutTexts:
    tokenizer = Tokenizer.load(dataset.folder)
    documents = DocumentReader(dataset, "val", tokenizer.end_of_text)
    chosen = evenly_spaced(len(documents), config.documents or len(documents)).tolist()
    texts = [reorder(tokenizer.decode(documents.read(index)), dataset.order) for index in chosen]
    notes = [f"{len(chosen):,} of {amount(len(documents), 'held-out document')} of {dataset.folder}."]
    return HeldOutTexts(f"held-out documents of {name}", name, texts, notes, [])


def read_texts(inputs: tuple[str, ...], encoding: str = UTF8) -> HeldOutTexts:
    """The documents of files."""
    documents: list[list[bytes]] = []
    try:
        # The reader cuts long documents into parts; here they are joined again.
        for parts, _ in open_documents(PreprocessConfig(input=inputs, encoding=encoding)).read(Position(0, 0)):
            for part in parts:
                if not (part.continues and documents):
                    documents.append([])
                documents[-1].append(part.text or b"")
    except UserError as error:  # it names the flag of preprocessing
        raise UserError(
            str(error)
            .replace("--input", "--text")
            .replace(". Choose one with --field", "")
            .replace("; or skip it with --skip-bad-rows", ""),
            error.exit_code,
        ) from error
    texts = [text for parts in documents if (text := decode_utf8(b"".join(parts)))]
    if not texts:
        raise UserError(f"--text {' '.join(inputs)}: no text in it", BAD_FLAGS)
    lost = len(documents) - len(texts)
    notes = [f"{amount(len(texts), 'text')}; empty or not valid UTF-8: {lost:,}."]
    name = inputs[0] + (f" and {len(inputs) - 1} more" if len(inputs) > 1 else "")
    return HeldOutTexts(name, name, texts, notes, [])


def read_held_out_pairs(config: EvaluateConfig, checkpoint: Checkpoint) -> HeldOutPairs:
    """The pairs of a file, or the validation pairs of the data folder in the flags or of the one that the checkpoint was tuned on."""
    if checkpoint.stage != "tuning":
        raise NotMeasured(
            f"{checkpoint.path} is pretrained but not tuned, so it cannot generate instructions. "
            f"Tune it with: python finetune_xcoax.py --model-path {checkpoint.path}"
        )
    if config.pairs:
        source, pairs = config.pairs, _read_pairs_of_file(config.pairs, config.encoding)
    else:
        dataset = open_data(config.pairs_dir, checkpoint, "tuning")
        source, pairs = f"{dataset.folder} (its meta.json counts what preprocessing skipped)", _read_pairs(dataset, "val")
    pool, note = _make_pool(pairs, source, max(MIN_POOL_LIMIT, config.max_pairs, 2 * max(config.candidates)), checkpoint)
    evaluated = [pool[index] for index in evenly_spaced(len(pool), config.max_pairs).tolist()]
    training, notes, warnings = _read_training_pairs(checkpoint, evaluated)
    return HeldOutPairs(evaluated, pool, training, source.partition(" (")[0], [note, *notes], warnings)


def open_data(folder: str, checkpoint: Checkpoint, stage: Stage) -> Dataset:
    """The data folder with this name, or without a name the one that the checkpoint was trained on in this stage."""
    content: Content = "documents" if stage == "pretraining" else "pairs"
    if folder:
        return open_dataset(Path(folder), content)
    settings = checkpoint.train_config
    try:
        if stage == "pretraining" and checkpoint.stage == "tuning":
            earlier = began_with(checkpoint)
            settings = earlier.train_config if earlier else {}
        made_from = Path(settings["data_dir"])
        if not made_from.exists():
            raise NotMeasured(f"{made_from} is not there. If it was moved, put a link there: ln -s NEW_PLACE {made_from}")
        return open_dataset(made_from, content)
    except (KeyError, TypeError) as error:
        raise NotMeasured(f"{checkpoint.path} does not say what it was trained on") from error
    except UserError as error:
        raise NotMeasured(str(error)) from error


def _make_pool(pairs: list[Pair], source: str, limit: int, checkpoint: Checkpoint) -> tuple[list[HeldOutPair], str]:
    """At most `limit` of the usable pairs, evenly spaced, and a note that counts the others."""
    lost = Counter(f"left out: {pair.trouble}" for pair in pairs if pair.trouble)
    pairs = [pair for pair in pairs if not pair.trouble]
    prompt_format = PromptFormat(checkpoint.tokenizer, checkpoint.order)
    pool: list[HeldOutPair] = []
    for index in evenly_spaced(len(pairs), limit).tolist():
        example, trouble = make_example(pairs[index], prompt_format, checkpoint.model_config.block_size)
        if example:
            pool.append(HeldOutPair(pairs[index], example))
        if trouble:
            lost[trouble] += 1
    counts = ", ".join(f"{count:,} {trouble}" for trouble, count in sorted(lost.items())) or "none left out or cut"
    if not pool:
        raise UserError(f"{source}: no usable pairs ({counts})", BAD_FLAGS)
    examined = len(pool) + sum(count for trouble, count in lost.items() if trouble.startswith("left out"))
    return pool, f"{len(pool):,} of {amount(examined, 'pair')} can be used ({counts}), from {source}."


def make_example(pair: Pair, prompt_format: PromptFormat, block_size: int) -> tuple[Example | None, str]:
    """A pair as a training example, and what was lost of it."""
    instruction = [] if prompt_format.is_too_long(pair.instruction, block_size) else prompt_format.encode(pair.instruction)
    response = prompt_format.fit_beside(instruction, pair.response, block_size) if instruction else None
    if response is None:
        return None, "left out: instruction too long"
    ids = prompt_format.example(response.ids, instruction).astype(np.int64)
    return Example(ids, len(prompt_format.prompt(response.ids))), "cut: response too long" if response.is_cut else ""


def _read_training_pairs(checkpoint: Checkpoint, evaluated: Sequence[HeldOutPair]) -> tuple[list[Pair], list[str], list[str]]:
    """Pairs that the checkpoint was tuned on, if they can be read; then a note, or a warning, on evaluated pairs among them."""
    try:
        dataset = open_data("", checkpoint, "tuning")
        training = _read_pairs(dataset, "train", MAX_TRAINING_PAIRS)
    except (NotMeasured, UserError) as error:
        return [], [], [f"No training pairs to compare with, so the evaluated pairs may be among them: {error}"]
    known = {_compared(pair) for pair in training}
    seen = sum(_compared(one.pair) in known for one in evaluated)
    found = [f"Of the evaluated pairs, {seen:,} {'is' if seen == 1 else 'are'} among {amount(len(training), 'training pair')} read."]
    notes, warnings = ([], found) if seen else (found, [])
    if dataset.fingerprint not in str(checkpoint.must_match.get("the pairs", "")):
        warnings.append(f"{dataset.folder} may have changed since the model was tuned on it.")
    return training, notes, warnings


def _compared(pair: Pair) -> tuple[str, str]:
    """What makes two pairs the same. Responses are compared as the split of the data compares them: normalized, by their beginning."""
    return pair.instruction, normalize_response(pair.response)[:COMPARED_CHARACTERS]


def _read_pairs(dataset: Dataset, split: Split, limit: int | None = None) -> list[Pair]:
    prompt_format = PromptFormat(Tokenizer.load(dataset.folder), dataset.order)
    examples = Examples(dataset, split, prompt_format)
    chosen = (examples[index] for index in evenly_spaced(len(examples), limit or len(examples)).tolist())
    parts = ((example.ids[example.prompt_length :], example.ids[: example.prompt_length]) for example in chosen)
    return [Pair(prompt_format.decode(instruction), prompt_format.decode(response)) for instruction, response in parts]


def _read_pairs_of_file(path: str, encoding: str) -> list[Pair]:
    rows = read_rows_or_errors(path, lambda fields: pair_fields(fields, path), encoding)
    return [Pair("", "", row.partition(":")[0]) if isinstance(row, str) else pair_from_row(row, generated=False) for row in rows]
