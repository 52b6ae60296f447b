"""Damage of known kinds: other format numbers, files cut off at any length, archives and compressed files that grow."""

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from config import PreprocessConfig
from formats.checkpoint import load_checkpoint
from formats.shards import open_dataset
from formats.tolerant_rows import read_rows_or_errors
from preprocessing.sources import Position, open_documents
from tests.faults.in_children import Start, refused, try_each
from tests.faults.mutants import Mutant
from tokens.tokenizer import Tokenizer

FORMATS: tuple[object, ...] = (0, 2, -1, 1 << 63, 10**400, "1", None, [1], {}, 1.5, float("nan"))
TEXT = "the cat, 日本\n é"
GROWN = 1200 << 20  # bytes of what a small compressed file holds
SHARE = pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.faults)])  # `make test` tries a fifth


@SHARE
def test_other_format_numbers(trials: Start, checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path, step: int) -> None:
    kind = trials("another format number in a checkpoint or meta.json")
    content = torch.load(checkpoints["tuning"], weights_only=True)
    folder = shutil.copytree(dataset_folder, tmp_path / "data")
    meta = json.loads((folder / "meta.json").read_text())
    for number in FORMATS[::step]:
        torch.save({**content, "format": number}, tmp_path / "best_checkpoint.pt")
        (folder / "meta.json").write_text(json.dumps({**meta, "format": number}))
        for read in (lambda: load_checkpoint(tmp_path), lambda: open_dataset(folder)):
            with kind.one(number) as trial:
                trial.refused = refused(read)
                assert trial.refused


@SHARE
def test_files_cut_off_at_any_length(trials: Start, checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path, step: int) -> None:
    path, shard = tmp_path / "best_checkpoint.pt", tmp_path / "data" / "train_00000.bin"
    shutil.copytree(dataset_folder, shard.parent)
    whole = (dataset_folder / "tokenizer.model").read_bytes()
    readers: dict[Path, Callable[[bytes], object]] = {
        checkpoints["tuning"]: lambda content: (path.write_bytes(content), load_checkpoint(path)),
        dataset_folder / "tokenizer.model": Tokenizer,
        dataset_folder / "train_00000.bin": lambda content: (shard.write_bytes(content), open_dataset(shard.parent)),
    }
    for file, read in readers.items():
        content = file.read_bytes()
        size = len(content)

        def is_refused(cut: bytes, name: str = file.name, read: Callable[[bytes], object] = read) -> bool:
            found = refused(lambda: read(cut))
            # A model of SentencePiece may end early, at the end of a field: folders of data and checkpoints know its hash.
            assert found or (name == "tokenizer.model" and Tokenizer(cut).encode(TEXT) == Tokenizer(whole).encode(TEXT))
            return found

        lengths = sorted({*range(min(size, 60)), *range(60, size, 1 + step * size // 1000), *range(max(0, size - 40), size)})
        try_each(trials("files cut off at any length"), (Mutant(f"{file.name} at {end}", content[:end]) for end in lengths), is_refused)


def bomb(kind: str, parts: int, part: bytes) -> bytes:
    """A compressed file that holds a part many times."""
    return gzip.compress(part, 1) * parts if kind == "gz" else bytes(pyarrow.compress(part, "zstd", asbytes=True)) * parts


@pytest.mark.faults
def test_small_files_that_grow(trials: Start, tmp_path: Path) -> None:
    """Each holds more than a gigabyte: read in parts, or refused before it is unpacked."""
    kind = trials("bombs: archives and compressed files that grow")
    part = 16 << 20
    for ending in ("jsonl.gz", "csv.zst", "parquet", "txt"):
        path = tmp_path / f"a.{ending}"

        def read(content: bytes, path: Path = path) -> bool:
            path.write_bytes(content)
            if path.suffix == ".txt":  # a sparse file
                with path.open("r+b") as file:
                    file.truncate(GROWN)
            refused(lambda: [None for _ in read_rows_or_errors(str(path), lambda fields: fields)])
            config = PreprocessConfig(input=(str(path),), skip_bad_rows=True)
            return refused(lambda: [None for items, _ in open_documents(config).read(Position(0, 0)) for item in items if not item.text])

        content = b"a"  # of the sparse file
        if ending == "parquet":  # a dictionary of one long text, and a run of its number
            pyarrow.parquet.write_table(pyarrow.table({"text": ["a" * (1 << 20)] * (GROWN >> 20)}), path)
            content = path.read_bytes()
        elif ending != "txt":
            content = bomb(ending.rpartition(".")[2], GROWN // part, bytes(part))
        assert len(content) < GROWN // 100
        try_each(kind, [Mutant(ending, content)], read, seconds=120)

    def load(content: bytes) -> bool:
        path = tmp_path / "best_checkpoint.pt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as file:
            for _ in range(8):
                file.write(bytes(1 << 20))
        assert refused(lambda: load_checkpoint(path))
        return True

    try_each(kind, [Mutant("checkpoint", b"")], load)
