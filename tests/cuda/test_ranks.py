"""Two GPUs take the steps of one, with whole and with divided weights."""

from pathlib import Path

import pytest
import torch

from tests.ranks import torchrun
from tests.training.runs import pretrain, pretraining_command
from training.metrics import read_metrics

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
RUN = ("--device", "cuda", "--max-steps", 12, "--eval-every", 6, "--optimizer", "muon")


@pytest.mark.parametrize("flags", [(), ("--shard",), ("--shard", "--compile")])
def test_two_gpus_take_the_steps_of_one(flags: tuple[str, ...], dataset_folder: Path, tmp_path: Path) -> None:
    assert pretrain(dataset_folder, tmp_path / "one", *RUN).returncode == 0
    result = torchrun(2, pretraining_command(dataset_folder, tmp_path / "two", *RUN, *flags))
    assert result.returncode == 0, result.stderr
    for name in ("loss", "val_loss"):
        ours, theirs = ([row[name] for row in read_metrics(tmp_path / folder) if name in row] for folder in ("two", "one"))
        assert ours == pytest.approx(theirs, abs=2e-3)
