"""Our training and the yardstick's take the same batches, as training does, and wait for the device only once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import torch

from benchmarking.bench import Bench
from benchmarking.training_speed import Contest, Variant
from formats.batches import Windows
from formats.token_stream import ID_DTYPE, TokenStream
from tests.reads import CountReads
from training.loss import DeviceBatch


@pytest.fixture
def contest(bench: Bench) -> Iterator[Contest]:
    shard, shape = bench.scratch / "train.bin", bench.config.model
    np.random.default_rng(0).integers(0, shape.vocab_size, 1000).astype(ID_DTYPE).tofile(shard)
    with ThreadPoolExecutor(1) as reader:
        yield Contest(bench, Windows(TokenStream([shard], [1000], shape.vocab_size), shape.block_size, filler=0), reader)


@pytest.mark.parametrize("variant", [("ours", False), ("yardstick", False)])
def test_values_are_read_once_however_many_steps(variant: Variant, contest: Contest, monkeypatch: pytest.MonkeyPatch) -> None:
    contest.run(variant, 1)  # makes the yardstick
    with CountReads(monkeypatch) as reads:
        contest.run(variant, 5)
    assert reads.count == 1


def test_both_train_on_the_same_batch_which_ours_finds_on_the_device(contest: Contest, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, yardstick = (mock.Mock(wraps=stepper.step) for stepper in (contest.stepper, contest.yardstick))
    monkeypatch.setattr(contest.stepper, "step", ours)
    monkeypatch.setattr(contest.yardstick, "step", yardstick)
    contest.run(("ours", False), 2)
    contest.run(("yardstick", False), 1)
    for call in ours.call_args_list:
        assert isinstance(call.args[0], DeviceBatch)
        for tensor, theirs in zip(call.args[0].tensors, yardstick.call_args.args[:2], strict=True):
            assert torch.equal(tensor, theirs)
