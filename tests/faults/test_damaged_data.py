"""Damaged data folders: ids as they are in the files and below the vocabulary, or one line; a checked folder is never read differently."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config import InstructConfig, PreprocessConfig
from formats.document_reader import DocumentReader
from formats.shards import SPLITS, Dataset, Split, open_dataset
from formats.token_stream import ID_DTYPE
from preprocessing.earlier_data import like_data, likeness, recorded_revision
from preprocessing.journal import Journal, open_finished
from tests.conftest import make_pairs, write_pairs
from tests.faults.in_children import Start, counts, refused, try_each
from tests.faults.json_mutants import json_mutants
from tests.faults.mutants import Places, byte_mutants, text_places
from tests.faults.trials import Outcome, Trials
from tests.preprocessing.in_process import run_here, run_to_the_first_record
from tokens.tokenizer import Tokenizer

QUICK = 20


def try_json(trials: Trials, path: Path, count: int, read: Callable[[], int]) -> None:
    """Damage the bytes of a JSON file, and the values in it."""
    content = path.read_bytes()

    def write_and_read(damaged: bytes) -> int:
        path.write_bytes(damaged)
        return read()

    assert read() == Outcome.RIGHT, "the sound file is not read right"
    values = json_mutants(json.loads(content), count // 2, indent=1)
    try_each(trials, chain(byte_mutants(content, text_places(content), count // 2), values), write_and_read)
    path.write_bytes(content)


def same_or_changed(path: Path, sound: object) -> Outcome:
    """Whether a JSON file that was not refused still says the same; if not, nothing in it tells that it was changed."""
    return Outcome.RIGHT if json.dumps(json.loads(path.read_text())) == json.dumps(sound) else Outcome.CHANGED


def check_split(dataset: Dataset, split: Split, boundary: int) -> None:
    """Reading gives the ids in the files, all below the end of the vocabulary, and whole documents; else a UserError."""
    in_files = np.concatenate([np.fromfile(dataset.folder / shard.name, ID_DTYPE) for shard in dataset.shards(split)])
    stream = dataset.stream(split)
    ids = stream.read(0, len(stream))
    assert np.array_equal(ids, in_files)
    assert ids.max() < dataset.vocab_size
    reader = DocumentReader(dataset, split, boundary)
    assert np.array_equal(np.concatenate([reader.read(index) for index in range(len(reader))]), ids)


@pytest.fixture
def folder(dataset_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(dataset_folder, tmp_path / "data")


@counts(QUICK)
def test_damaged_shards(trials: Start, folder: Path, count: int) -> None:
    """Training does not check hashes: it may read other ids, but none outside the vocabulary. Checking them refuses every mutant."""
    boundary = Tokenizer.load(folder).end_of_text
    kind = trials("damage in a shard")
    for split in SPLITS:
        check_split(open_dataset(folder, check_hashes=True), split, boundary)
        path = folder / f"{split}_00000.bin"
        original = path.read_bytes()

        def read(content: bytes, path: Path = path, split: Split = split, size: int = len(original)) -> int:
            path.write_bytes(content)
            assert refused(lambda: open_dataset(folder, check_hashes=True), path)
            if len(content) != size:
                assert refused(lambda: open_dataset(folder), path)
                return Outcome.REFUSED
            are_refused = {each: refused(partial(check_split, open_dataset(folder), each, boundary), folder) for each in SPLITS}
            assert [each for each in SPLITS if are_refused[each]] in ([], [split])
            return Outcome.REFUSED if any(are_refused.values()) else Outcome.CHANGED  # training reads other ids

        try_each(kind, byte_mutants(original, shard_places(original, boundary), count // 2, seed=len(split)), read)
        path.write_bytes(original)


def shard_places(content: bytes, boundary: int) -> Places:
    """The boundaries of documents, the other ids, and the ends."""
    size = ID_DTYPE.itemsize
    starts = [int(place) * size for place in np.flatnonzero(np.frombuffer(content, ID_DTYPE) == boundary)]
    ends = {"beginning": [(0, size)], "end": [(len(content) - size, len(content))]}
    return {**ends, "boundaries": [(start, start + size) for start in starts], "ids": [(0, len(content))]}


def test_exchanged_shards_are_refused(trials: Start, folder: Path) -> None:
    kind = trials("shards exchanged, missing or of another folder")
    train, val = (folder / f"{split}_00000.bin" for split in SPLITS)
    contents = train.read_bytes(), val.read_bytes()
    other = (contents[0] + contents[1])[: len(contents[0])]
    for one, two in ((contents[1], contents[0]), (other[::-1], contents[1]), (contents[0][2:] + contents[0][:2], contents[1]), (b"", b"")):
        train.write_bytes(one)
        val.write_bytes(two)
        with kind.one(len(one)) as trial:
            trial.refused = refused(lambda: open_dataset(folder, check_hashes=True))
            assert trial.refused
    train.unlink()
    with kind.one("missing") as trial:
        trial.refused = refused(lambda: open_dataset(folder))
        assert trial.refused


@counts(QUICK)
def test_damaged_meta_json(trials: Start, folder: Path, tmp_path: Path, count: int) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    boundary = Tokenizer.load(folder).end_of_text
    sound = {split: open_dataset(folder).stream(split).read(0, 1 << 30) for split in SPLITS}
    texts = PreprocessConfig(data_dir=str(tmp_path / "new"))
    hub = {name: meta["settings"].get(name) for name in ("dataset", "subset", "split")}  # as if the folder were of the hub's data

    def use() -> None:
        dataset = open_dataset(folder)
        assert dataset.order in ("backward", "forward")
        assert dataset.summary()
        assert dataset.fingerprint
        for split in SPLITS:
            found = dataset.stream(split).read(0, 1 << 30)
            names = [shard.name for shard in dataset.shards(split)]
            assert np.array_equal(found, np.concatenate([sound[split]] * len(names)))
            check_split(dataset, split, boundary)

    def read_all() -> int:
        ways: list[Callable[[], object]] = [
            use,
            lambda: open_dataset(folder, check_hashes=True),
            lambda: like_data(texts, folder, {"data_dir"}).check(),
            lambda: likeness(PreprocessConfig(like=str(folder)), meta["settings"]),
            lambda: open_finished(folder, "documents", meta["settings"]),
            lambda: Journal(folder).reopen(meta["settings"]) if "end" in open_dataset(folder).meta else None,
            lambda: recorded_revision(dataclasses.replace(texts, like=str(folder), **hub)),
        ]
        found = [refused(way, folder) for way in ways]
        shutil.rmtree(folder / "unfinished", ignore_errors=True)
        if any(found):
            return Outcome.REFUSED
        dataset = open_dataset(folder)
        assert dataset.meta["tokenizer_sha256"] == meta["tokenizer_sha256"]
        for split in SPLITS:  # what the files themselves tell
            [true] = meta["shards"][split]
            assert all(
                (each.ids, each.documents, each.sha256) == (true["ids"], true["documents"], true["sha256"])
                for each in dataset.shards(split)
            )
        return same_or_changed(folder / "meta.json", meta)

    try_json(trials("damage in meta.json"), folder / "meta.json", count, read_all)


@counts(QUICK)
def test_damaged_meta_json_of_pairs(trials: Start, dataset_folder: Path, tmp_path: Path, count: int) -> None:
    folder = tmp_path / "pairs"
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(60))
    flags = ("--tokenizer", dataset_folder, "--block-size", 64, "--val-share", 0.3)
    result = run_here("preprocess_instruct.py", "--input", source, "--data-dir", folder, "--vocab-size", 400, *flags)
    assert result.returncode == 0, result.stderr
    new = InstructConfig(data_dir=str(tmp_path / "new"))

    def use() -> None:
        dataset = open_dataset(folder, "pairs")
        assert dataset.summary()
        assert isinstance(dataset.meta["settings"]["block_size"], int)
        like_data(new, folder, {"data_dir"}).check()

    path, meta = folder / "meta.json", json.loads((folder / "meta.json").read_text())
    try_json(trials("damage in meta.json"), path, count, lambda: Outcome.REFUSED if refused(use, folder) else same_or_changed(path, meta))


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    return run_to_the_first_record(tmp_path / "unfinished data", tmp_path / "a.jsonl")


@counts(QUICK)
def test_damaged_plans(trials: Start, unfinished: Path, count: int) -> None:
    path = unfinished / "unfinished" / "plan.json"
    sound = json.loads(path.read_text())
    settings: dict[str, Any] = sound["settings"]

    def read() -> int:
        def use() -> None:
            plan = Journal(unfinished).plan()
            assert plan
            assert isinstance(plan["settings"], dict)
            assert isinstance(plan["held_out_below"], int)
            assert isinstance(plan["revision"], str)

        refused(lambda: open_finished(unfinished, "documents", settings), unfinished)
        return Outcome.REFUSED if refused(use, unfinished) else same_or_changed(path, sound)

    try_json(trials("damage in the journal of preprocessing"), path, count, read)


@counts(QUICK)
def test_damaged_records_of_chunks(trials: Start, unfinished: Path, count: int) -> None:
    path = unfinished / "unfinished" / "chunk_00000.json"
    sound = json.loads(path.read_text())

    def read() -> int:
        def use() -> None:
            journal = Journal(unfinished)
            number, (file, row) = journal.resume_point()
            assert number == 1
            assert file >= 0
            assert row >= 0
            record = journal.records[0]
            shards = [shard for split in SPLITS for shard in record.shards[split]]
            assert all(shard.documents > 0 and shard.name.startswith(("train_", "val_")) for shard in shards)
            assert all(count >= 0 for count in record.counts.values())
            assert isinstance(record.documents + record.bytes, int)
            json.dumps(record.counts)

        return Outcome.REFUSED if refused(use, unfinished) else same_or_changed(path, sound)

    try_json(trials("damage in the journal of preprocessing"), path, count, read)
