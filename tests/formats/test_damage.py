"""Damaged data folders and checkpoints of known kinds: refused in one line. tests/faults damages every format at random."""

import json
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from formats.checkpoint import load_checkpoint
from formats.shards import open_dataset
from system.errors import UserError
from tests.faults.in_children import refused

NAMES = ("format", "order", "vocab_size", "tokenizer_sha256", "settings", "counts", "shards")
VALUES: list[object] = [None, "missing", -1, 2**63, [], {}, {"train": [], "val": []}]
EMPTY_IS_POSSIBLE = ("settings", "counts")


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in NAMES for v in VALUES if not (isinstance(v, dict) and n in EMPTY_IS_POSSIBLE)])
def test_a_wrong_value_in_meta_json_is_refused(dataset_folder: Path, tmp_path: Path, name: str, value: object) -> None:
    shutil.copytree(dataset_folder, tmp_path / "data")
    meta = json.loads((tmp_path / "data" / "meta.json").read_text())
    if value == "missing":
        del meta[name]
    else:
        meta[name] = value
    (tmp_path / "data" / "meta.json").write_text(json.dumps(meta))
    assert refused(lambda: open_dataset(tmp_path / "data"))


RECORDED: list[dict[str, object]] = [
    {"end": [0, -1]},
    {"end": [0]},
    {"end": [0, float("inf")]},
    {"chunks": 1 << 62},
    {"chunks": "1"},
    {"revision": None},
    {"revision": "missing"},
    {"held_out_below": 0.5},
    {"settings": {"num_chunks": 1000, "input": {}}},
    {"settings": {"num_chunks": 1000, "input": [["a"]]}},
    {"settings": {"num_chunks": "1000"}},
    {"settings": {}},
]


@pytest.mark.parametrize("changes", RECORDED)
def test_a_place_where_more_chunks_could_not_begin_is_refused(dataset_folder: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    shutil.copytree(dataset_folder, tmp_path / "data")
    meta = json.loads((tmp_path / "data" / "meta.json").read_text())
    kept = {name: value for name, value in (meta | changes).items() if value != "missing"}
    (tmp_path / "data" / "meta.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match="meta.json is damaged"):
        open_dataset(tmp_path / "data")


def test_a_hash_that_is_no_text_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset_folder, tmp_path / "data")
    meta = json.loads((tmp_path / "data" / "meta.json").read_text())
    meta["shards"]["train"][0]["sha256"] = []
    (tmp_path / "data" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="train_00000.bin: its hash is not text"):
        open_dataset(tmp_path / "data")


def test_a_shard_outside_the_folder_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset_folder, tmp_path / "data")
    meta = json.loads((tmp_path / "data" / "meta.json").read_text())
    shard = meta["shards"]["train"][0]
    shutil.copy(tmp_path / "data" / shard["name"], tmp_path / shard["name"])
    shard["name"] = f"../{shard['name']}"
    (tmp_path / "data" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="is not the name of a train shard"):
        open_dataset(tmp_path / "data")


def test_an_id_above_the_vocabulary_is_refused_without_verifying(dataset_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset_folder, tmp_path / "data")
    path = next((tmp_path / "data").glob("train_*.bin"))
    ids = np.fromfile(path, "<u2")
    ids[5] = 60_000
    ids.tofile(path)
    with pytest.raises(UserError, match=r"train_00000.bin is damaged: it has the id 60000, and the vocabulary ends at 399"):
        open_dataset(tmp_path / "data").stream("train").read(0, 10)


def test_a_checkpoint_whose_parts_contradict_each_other(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "best_checkpoint.pt"
    content = torch.load(checkpoints["tuning"], weights_only=True)
    wrong = {
        "n_layer": (1000, "layers"),
        "n_embed": (1 << 16, "embeddings of shape"),
        "block_size": (10**12, "--block-size 1000000000000: from 2 to"),
        "n_head": (7, "not a multiple of twice --n-head 7"),
        "vocab_size": (300, "embeddings of shape"),
        "dropout": ("much", "not supported between"),
    }
    for name, (value, message) in wrong.items():
        torch.save({**content, "model_config": {**content["model_config"], name: value}}, path)
        with pytest.raises(UserError, match=message):
            load_checkpoint(path)
    query, norm = "blocks.0.attention.query.weight", "norm.weight"
    weights = dict(content["model"])
    others = {
        f"{query} is missing": {"blocks.0.attention.wrong.weight": weights[query]},
        f"{query} has shape": {query: weights[query][:1]},
        f"{norm} has shape .* in torch.int64": {norm: weights[norm].long()},
        f"{norm} has shape .* in torch.float16": {norm: weights[norm].half()},
        "norm.weight has shape": {norm: weights[norm].to_sparse()},
        "has no attribute": {norm: 1},
    }
    for message, changes in others.items():
        kept = {name: tensor for name, tensor in weights.items() if name != query or "missing" not in message}
        torch.save({**content, "model": kept | changes}, path)
        with pytest.raises(UserError, match=message):
            load_checkpoint(path)
    for name, value in (("order", "sideways"), ("step", "three"), ("val_loss", None), ("train_config", []), ("identity", None)):
        torch.save({**content, name: value}, path)
        assert refused(lambda: load_checkpoint(path)), name


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "best_checkpoint.pt", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w") as file,
    ):
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(UserError, match="compressed, as torch.save never does"):
        load_checkpoint(tmp_path)


def test_an_archive_whose_members_overlap_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A directory that names one megabyte ten thousand times."""
    path = tmp_path / "best_checkpoint.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
        archive.filelist *= 10_000
    with pytest.raises(UserError, match="its contents are larger than the file"):
        load_checkpoint(tmp_path)


def test_an_archive_with_two_members_of_one_name_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "best_checkpoint.pt"
    shutil.copy(checkpoints["tuning"], path)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name, archive.read(name))
    with pytest.raises(UserError, match="two of its members have one name"):
        load_checkpoint(path)


@pytest.mark.parametrize("repacked", [False, True])
def test_a_torchscript_file_is_refused_without_a_warning(tmp_path: Path, repacked: bool) -> None:
    path = tmp_path / "best_checkpoint.pt"
    with warnings.catch_warnings(action="ignore"):  # some versions of torch call TorchScript deprecated
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    if repacked:  # its code is compressed, which is refused before torch looks at the file; this leads it past that check
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    message = "TorchScript archives" if repacked else "are compressed"
    with warnings.catch_warnings(action="error"), pytest.raises(UserError, match=f"is not a checkpoint of this project.*{message}"):
        load_checkpoint(path)
