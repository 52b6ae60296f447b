"""Damaged files: every mutant of a format is read correctly or refused in one line, never silently different, never a traceback."""

import json
import os
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from formats.checkpoint import load_checkpoint
from formats.shards import open_dataset
from system.errors import UserError
from tokens.tokenizer import Tokenizer

QUICK = 150
LONG = 10_000


def mutants(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Copies with a few changed bytes, cut off, with a part missing or repeated."""
    source = random.Random(seed)
    for _ in range(count):
        damaged, kind = bytearray(content), source.random()
        start = source.randrange(len(content))
        end = min(len(content), start + source.randint(1, 64))
        if kind < 0.6:
            for _ in range(source.randint(1, 4)):
                damaged[source.randrange(len(content))] = source.randrange(256)
        elif kind < 0.75:
            damaged = damaged[:start]
        elif kind < 0.9:
            del damaged[start:end]
        else:
            damaged[start:start] = content[start:end]
        if damaged != content:
            yield bytes(damaged)


def refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
def test_no_damaged_checkpoint_loads(checkpoints: dict[str, Path], tmp_path: Path, count: int) -> None:
    """torch.load reads most of them as if nothing had happened."""
    original = checkpoints["tuning"].read_bytes()
    path = tmp_path / "best_checkpoint.pt"
    weights = load_checkpoint(checkpoints["tuning"], mapped=False).weights
    for content in mutants(original, count):
        path.write_bytes(content)
        if not refused(lambda: load_checkpoint(path).make_model(torch.device("cpu"))):
            read = load_checkpoint(path).weights  # the damage was in bytes that mean nothing, such as padding
            assert all(torch.equal(value, weights[name]) for name, value in read.items())


@pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
def test_a_damaged_meta_json_is_refused_or_harmless(dataset_folder: Path, tmp_path: Path, count: int) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset_folder, folder)
    original = (folder / "meta.json").read_bytes()
    for content in mutants(original, count):
        (folder / "meta.json").write_bytes(content)
        if not refused(lambda: open_dataset(folder)):
            dataset = open_dataset(folder)
            assert dataset.summary()
            assert len(dataset.stream("train").read(0, 10)) == 10


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


def read_in_child(model: bytes) -> int:
    """The exit code of a process that uses a tokenizer: a damaged one may crash SentencePiece itself."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 2
    try:
        tokenizer = Tokenizer(model)
        assert len(tokenizer.bytes_per_id) == len(tokenizer.begins_word)
        tokenizer.decode(tokenizer.encode("the cat, 日本\n é"))
        code = 0
    except UserError:
        code = 1
    finally:
        os._exit(code)


@pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
def test_a_damaged_tokenizer_is_refused_or_works(dataset_folder: Path, count: int) -> None:
    original = (dataset_folder / "tokenizer.model").read_bytes()
    assert {read_in_child(content) for content in mutants(original, count)} <= {0, 1}


def test_a_checkpoint_whose_parts_contradict_each_other(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "best_checkpoint.pt"
    content = torch.load(checkpoints["tuning"], weights_only=True)
    wrong = {
        "n_layer": (10**9, "layers"),
        "n_embed": (10**9, "embeddings of shape"),
        "block_size": (10**12, "--block-size 1000000000000: from 2 to"),
        "n_head": (7, "not a multiple of twice --n-head 7"),
        "vocab_size": (300, "embeddings of shape"),
        "dropout": ("much", "not supported between"),
    }
    for name, (value, message) in wrong.items():
        torch.save({**content, "model_config": {**content["model_config"], name: value}}, path)
        with pytest.raises(UserError, match=message):
            load_checkpoint(path)
    weights = dict(content["model"])
    weights["blocks.0.attention.wrong.weight"] = weights.pop("blocks.0.attention.query.weight")
    torch.save({**content, "model": weights}, path)
    with pytest.raises(UserError, match="its weights do not fit its config"):
        load_checkpoint(path).make_model(torch.device("cpu"))
    for name, value in (("order", "sideways"), ("step", "three"), ("val_loss", None), ("train_config", [])):
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
