"""Our training and the yardstick's take the same batches, as training does; what is timed neither waits for the device nor compiles."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from benchmarking.bench import Bench
from benchmarking.training_speed import Contest, Variant, _warm_up
from benchmarking.yardstick import ReferenceStepper
from formats.batches import Windows
from formats.token_stream import ID_DTYPE, TokenStream
from tests.reads import CountReads
from training.device_batch import DeviceBatch


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that torch.compile was given, which run as they are."""
    graphs = []

    def compile_graph(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compile_graph))
    return graphs


@pytest.fixture
def contest(compilations: list[torch.fx.GraphModule], bench: Bench) -> Iterator[Contest]:
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


def test_nothing_compiles_after_the_warm_up_even_if_memory_ran_out(
    bench: Bench, contest: Contest, compilations: list[torch.fx.GraphModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ReferenceStepper.step

    def step_in_little_memory(stepper: ReferenceStepper, inputs: torch.Tensor, targets: torch.Tensor, compiled: bool) -> torch.Tensor:
        if compiled and stepper.micro_batch > 2:
            raise torch.OutOfMemoryError
        return step(stepper, inputs, targets, compiled)

    monkeypatch.setattr(ReferenceStepper, "step", step_in_little_memory)
    variants: list[Variant] = [("ours", True), ("yardstick", True)]
    assert list(_warm_up(bench, contest, variants)) == variants
    assert contest.micro_batches == (4, 2)
    assert compilations
    compilations.clear()
    for variant in variants:
        contest.run(variant, 1)
    assert not compilations
