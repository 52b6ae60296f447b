"""All of sample-100BT: 115 billion tokens in sparse files. Opening them, the order of an epoch and a batch take little memory."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from formats.shards import Shard
from formats.token_stream import ID_DTYPE
from tests.conftest import ROOT
from tests.training.runs import pretrain

SHARDS = 16_000
IDS = 7_200_000  # in a shard, as preprocessing makes them

# As train_xcoax.py does it: open, draw a published step in the middle of an epoch and the next one, and a batch of validation.
CODE = """
import sys
from psutil import Process
from config import TrainConfig
from training.pretraining import open_training_data, pretraining_task

before = Process().memory_info().rss
config = TrainConfig(data_dir=sys.argv[1])
task = pretraining_task(config, *open_training_data(config))
for first in (50_000_000, 50_000_256):
    batch = task.draw(first, config.sequences_per_step)
    assert batch.inputs.shape == (256, 1024)
next(iter(task.validation(64)))
print(Process().memory_info().rss - before)
"""


@pytest.fixture(scope="module")
def large(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished data folder of 230 GB that takes no space on the disk."""
    folder = tmp_path_factory.mktemp("large")
    meta = json.loads((dataset_folder / "meta.json").read_text(encoding="utf-8"))
    shutil.copy(dataset_folder / "tokenizer.model", folder)
    for split, count in (("train", SHARDS), ("val", SHARDS // 200)):
        names = [f"{split}_{number:05}.bin" for number in range(count)]
        meta["shards"][split] = [dataclasses.asdict(Shard(name, IDS, 10_000, 25_000_000, hashlib.sha256().hexdigest())) for name in names]
        for name in names:
            with (folder / name).open("wb") as file:
                file.truncate(IDS * ID_DTYPE.itemsize)
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return folder


def test_a_run_on_it_takes_little_memory(large: Path) -> None:
    result = subprocess.run([sys.executable, "-c", CODE, large], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert 1e6 < int(result.stdout) < 100e6


def test_a_run_on_it_starts_and_resumes(large: Path, tmp_path: Path) -> None:
    for steps in (1, 2):
        result = pretrain(large, tmp_path, "--max-steps", steps)
        assert result.returncode == 0, result.stderr
    assert "115,200,000,000 training tokens" in result.stdout
    assert "resuming from" in result.stdout
