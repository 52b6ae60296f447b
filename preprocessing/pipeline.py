"""Owns a preprocessing run: from chunks of documents or pairs to a finished folder of shards.

A run can be killed at any time. The same command resumes from the journal and ends with the same bytes.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

from config import Content, SourceConfig
from formats.input_files import find_files, fingerprint
from formats.shards import Dataset
from preprocessing.chunks import Chunk, Item
from preprocessing.earlier_data import FREE, record_given
from preprocessing.encoding import encode_chunks
from preprocessing.engine import EncodeChunk
from preprocessing.journal import OPTIONAL, Journal, require_same_settings
from preprocessing.retries import retry
from preprocessing.split import held_out_bound, warn_of_little_held_out
from system.amounts import amount
from system.encodings import canonical_encoding
from system.errors import UserError
from system.escapes import tell
from tokens.encoders import EncoderName, choose_encoder
from tokens.tokenizer import Tokenizer

LARGEST_VAL_SHARE = 0.2  # of the text of the first chunk, held out as whole documents
CHECKED_TEXTS, CHECKED_CHARACTERS = 1000, 2 << 20  # gigatoken is compared with SentencePiece on at most this much text


@dataclass(frozen=True)
class Recipe(Generic[Item]):
    """What a run encodes and how: all that documents and pairs do differently."""

    content: Content
    chunks: Iterator[Chunk[Item]]  # from the first one that may lack a record
    tokenizer: Tokenizer
    source_revision: str  # commit of a hub data set; empty for local files
    split_hash: Callable[[Item, bool], int | None]  # decides the split of an item; if True, of each part on its own; None: unusable
    texts_to_encode: Callable[[Item], list[str]]  # of an item, in the order of the shards
    make_encode_chunk: Callable[[EncoderName, int, bool], EncodeChunk[Item]]  # from an encoder, the hash bound of validation, and the same
    too_little_advice: str  # what to do if a split is empty


def unused_flags(config: SourceConfig) -> tuple[str, ...]:
    """The flags that this kind of source ignores."""
    return ("dataset", "subset", "split") if config.input else ("input", "encoding", "skip_bad_rows")


def output_settings(config: SourceConfig, endings: tuple[str, ...]) -> dict[str, Any]:
    """The settings that the output depends on. Files count by name and content, in any folder; the caller adds the tokenizer's hash."""
    settings = asdict(config)
    for name in (*FREE, *unused_flags(config)):
        del settings[name]
    if config.input:
        settings["encoding"] = canonical_encoding(config.encoding)
        settings["input"] = retry(config.retries, "--input", lambda: [fingerprint(file) for file in find_files(config.input, endings)])
    return {name: value for name, value in settings.items() if name not in OPTIONAL or value != OPTIONAL[name]}


def open_journal(folder: Path, settings: dict[str, Any]) -> Journal:
    """The journal of a new run, of an earlier run with the same settings to resume, or of a finished folder to extend."""
    journal = Journal(folder)
    if not journal.plan() and (folder / "meta.json").is_file():
        journal.reopen(settings)
        tell(f"extending {folder}, which has {amount(len(journal.records), 'chunk')}; until the others are there, it stays as it was")
    elif plan := journal.plan():
        require_same_settings(folder, "started", plan["settings"], settings)
        tell(f"resuming {folder}: {amount(len(journal.records), 'chunk')} done")
    return journal


def write_dataset(journal: Journal, config: SourceConfig, recipe: Recipe[Item], settings: dict[str, Any]) -> Dataset:
    """Encode the chunks that the journal lacks and finish the folder."""
    first = next(recipe.chunks, None)
    if first is None and not journal.records:
        raise UserError(f"no {recipe.content} in {', '.join(config.input) or config.dataset}")
    if first is not None:  # it is gone through several times
        items = first.items
        first = first._replace(items=retry(config.retries, first.start, lambda: list(items)))
    plan = journal.plan()
    if not plan:
        assert first is not None
        plan = {"settings": settings, "revision": recipe.source_revision, **_plan_split(recipe, first, config.val_share)}
        journal.write_plan(plan)
    if first is not None:
        texts = (text for item in first.items for text in recipe.texts_to_encode(item))
        encoder_name, notice = choose_encoder(recipe.tokenizer, _texts_to_check(texts))
        tell(notice)
        encode_chunk = recipe.make_encode_chunk(encoder_name, plan["held_out_below"], plan.get("split_parts", False))
        speed = encode_chunks(journal, itertools.chain([first], recipe.chunks), encode_chunk, config, recipe.content)
        where = "on Ray" if config.engine == "ray" else f"with {amount(config.workers, 'worker')}"
        tell(f"reversed, encoded and wrote {speed:.1f} MB of text per second {where}")
    tokenizer = recipe.tokenizer
    meta: dict[str, Any] = {
        "content": recipe.content,
        "order": config.order,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": tokenizer.sha256,
    }
    if plan.get("split_parts"):
        meta["split_parts"] = True
    meta["held_out_below"] = plan["held_out_below"]
    meta |= {"revision": plan["revision"], **record_given(config), "settings": settings}
    dataset = journal.seal(meta, recipe.too_little_advice)
    if warning := warn_of_little_held_out(dataset, recipe.too_little_advice):
        tell(warning)
    return dataset


def _plan_split(recipe: Recipe[Item], first: Chunk[Item], val_share: float) -> dict[str, Any]:
    """How the run decides what is held out, from its first chunk.

    A document is on one side as a whole, unless that would hold out far more than asked for: one of few long documents.
    """
    usable = [item for item in first.items if recipe.split_hash(item, False) is not None]
    bounds = {}
    for split_parts in (False, True):
        hashes = [recipe.split_hash(item, split_parts) or 0 for item in usable]
        bounds[split_parts] = held_out_bound(val_share, hashes)
        held_out = sum(item.size for item, number in zip(usable, hashes, strict=True) if number < bounds[split_parts])
        if held_out <= max(2 * val_share, LARGEST_VAL_SHARE) * sum(item.size for item in usable):
            break
    if not split_parts or bounds[True] == bounds[False]:
        return {"held_out_below": bounds[False]}
    tell("few long documents: parts of them are held out for validation, so a document can be on both sides")
    return {"held_out_below": bounds[True], "split_parts": True}


def _texts_to_check(texts: Iterator[str]) -> list[str]:
    """The first texts, enough to compare encoders on."""
    taken, characters = [], 0
    for text in itertools.islice(texts, CHECKED_TEXTS):
        taken.append(text[:CHECKED_CHARACTERS])
        characters += len(text)
        if characters >= CHECKED_CHARACTERS:
            break
    return taken
