"""Data folders: a finished one opens, a damaged or unfinished one is refused with the command that makes it again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from formats.shards import Dataset, ShardWriter, open_dataset
from system.errors import UserError


@pytest.fixture
def dataset(dataset_folder: Path, tmp_path: Path) -> Dataset:
    return Dataset(Path(shutil.copytree(dataset_folder, tmp_path / "copy")), {})


def test_a_finished_folder_opens(dataset: Dataset) -> None:
    opened = open_dataset(dataset.folder, check_hashes=True)
    assert opened.order == "backward"
    assert opened.vocab_size == 400
    assert len(opened.stream("train")) == sum(shard.ids for shard in opened.shards("train"))


def test_a_shard_of_the_wrong_length_is_named_with_the_command(dataset: Dataset) -> None:
    shard = dataset.folder / "train_00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(
        UserError,
        match=r"train_00000.bin has [\d,]+ bytes instead of [\d,]+\. Delete the folder and run: python preprocess_xcoax.py --data-dir",
    ):
        open_dataset(dataset.folder)


def test_a_missing_shard_is_named(dataset: Dataset) -> None:
    (dataset.folder / "val_00000.bin").unlink()
    with pytest.raises(UserError, match="val_00000.bin is missing"):
        open_dataset(dataset.folder)


@pytest.mark.parametrize("name", ["train_00000.bin", "tokenizer.model"])
def test_a_flipped_bit_is_found_when_hashes_are_checked(dataset: Dataset, name: str) -> None:
    file = dataset.folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    open_dataset(dataset.folder)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        open_dataset(dataset.folder, check_hashes=True)


def test_an_unfinished_folder_gives_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished dataset in data/xcoax. Run: python preprocess_xcoax.py$"):
        open_dataset(Path("data/xcoax"))
    with pytest.raises(UserError, match="Run: python preprocess_xcoax.py tinystories$"):
        open_dataset(Path("data/tinystories"))
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(UserError, match="unfinished: run the same command again to resume"):
        open_dataset(tmp_path)


def test_another_format_or_a_damaged_meta_json_is_refused(dataset: Dataset) -> None:
    meta = json.loads((dataset.folder / "meta.json").read_text())
    (dataset.folder / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        open_dataset(dataset.folder)
    (dataset.folder / "meta.json").write_text("{")
    with pytest.raises(UserError, match="meta.json is damaged"):
        open_dataset(dataset.folder)


def test_a_failed_writer_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "train_00000.bin") as writer:
        writer.append(np.arange(3, dtype=np.uint16), 1, 3)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_shard_without_documents_leaves_no_file(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "val_00000.bin") as writer:
        assert writer.finish() == []
    assert list(tmp_path.iterdir()) == []
