"""Batches of windows: every token is a target once in an epoch, in an order that depends on the seed alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import IGNORE_INDEX
from formats.batches import PADDING, Batch, Windows, evenly_spaced, shuffled_indices
from tests.formats.conftest import write_stream


@given(
    lengths=st.lists(st.integers(2, 30), min_size=1, max_size=4),
    block_size=st.integers(1, 9),
    count=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_an_epoch_has_every_token_as_a_target_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], block_size: int, count: int, seed: int
) -> None:
    windows = Windows(write_stream(tmp_path_factory.mktemp("stream"), lengths), block_size, filler=0)
    drawn = [windows.draw(seed, first, min(count, 2 * len(windows) - first)) for first in range(0, 2 * len(windows), count)]
    inputs, targets = (np.concatenate([getattr(part, name) for part in drawn]) for name in ("inputs", "targets"))
    for epoch in (slice(len(windows)), slice(len(windows), None)):
        seen = targets[epoch][targets[epoch] != IGNORE_INDEX]
        assert sorted(seen.tolist()) == list(range(1, sum(lengths)))
    counted = targets != IGNORE_INDEX
    assert (targets[counted] == inputs[counted] + 1).all()  # a target is the id after its input


def test_a_batch_depends_on_the_seed_and_its_position_alone(tmp_path: Path) -> None:
    windows = Windows(write_stream(tmp_path, [500]), 7, filler=0)
    together = windows.draw(3, 0, 20).inputs
    assert np.array_equal(np.concatenate([windows.draw(3, 0, 7).inputs, windows.draw(3, 7, 13).inputs]), together)
    assert not np.array_equal(windows.draw(4, 0, 20).inputs, together)


@given(size=st.integers(1, 300), seed=st.integers(0, (1 << 63) - 1), epoch=st.integers(0, 1000))
def test_every_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    order = shuffled_indices(size, seed, epoch * size, 2 * size).tolist()
    assert sorted(order[:size]) == sorted(order[size:]) == list(range(size))
    assert size < 20 or order[:size] != order[size:]
    assert size < 20 or order[:size] != shuffled_indices(size, (seed + 1) % (1 << 63), epoch * size, size).tolist()


@given(size=st.integers(1, 30), seed=st.integers(0, 5), first=st.integers(0, 60), count=st.integers(0, 40))
def test_an_index_depends_on_its_position_alone(size: int, seed: int, first: int, count: int) -> None:
    order = shuffled_indices(size, seed, 0, first + count)
    assert np.array_equal(shuffled_indices(size, seed, first, count), order[first:])


def test_golden_order() -> None:
    """Any change to these numbers changes the batches of every run: SHUFFLE must then get another name."""
    assert shuffled_indices(10, 0, 0, 20).tolist() == [6, 0, 1, 4, 2, 3, 9, 8, 5, 7, 4, 7, 0, 3, 6, 2, 8, 5, 1, 9]
    assert shuffled_indices(30_000_000, 7, 3 * 30_000_000 - 2, 4).tolist() == [3182438, 4748386, 26749221, 22016778]


@pytest.mark.parametrize("size", [1000, 1 << 10, 30_000_000, 1 << 40])
def test_the_order_has_no_serial_correlation(size: int) -> None:
    """Each figure is a standard normal one if the order is random."""
    epochs = [shuffled_indices(size, seed, epoch * size, min(size, 20_000)) / size for seed in (0, 1) for epoch in (0, 1)]
    for order in epochs:
        for lag in (1, 2, 64):
            assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) * len(order) ** 0.5 < 4
        steps = np.bincount((np.diff(order) % 1 * 50).astype(int), minlength=50)
        assert abs(((steps - steps.mean()) ** 2 / steps.mean()).sum() - 49) / 98**0.5 < 4
    assert abs(np.corrcoef(epochs) - np.eye(4)).max() * len(epochs[0]) ** 0.5 < 4


@pytest.mark.parametrize("size", [2, 3, 5, 8, 31])
def test_every_item_comes_as_often_in_every_place(size: int) -> None:
    epochs = 4000
    order = shuffled_indices(size, 0, 0, epochs * size).reshape(epochs, size)
    counts = np.array([np.bincount(places, minlength=size) for places in order.T])
    freedom = (size - 1) ** 2
    assert abs(((counts - epochs / size) ** 2).sum() / (epochs / size) - freedom) / (2 * freedom) ** 0.5 < 4


def test_validation_windows_are_evenly_spaced_and_always_the_same(tmp_path: Path) -> None:
    windows = Windows(write_stream(tmp_path, [701]), 7, filler=0)
    assert evenly_spaced(len(windows), 4).tolist() == [0, 25, 50, 75]
    assert evenly_spaced(len(windows), 1000).tolist() == list(range(100))


def test_a_short_last_window_and_missing_sequences_are_padded(tmp_path: Path) -> None:
    windows = Windows(write_stream(tmp_path, [10]), 4, filler=99)
    batch = windows.read([2], height=2)
    assert batch.inputs.tolist() == [[8, 99, 99, 99], [99] * 4]
    assert batch.targets.tolist() == [[9, *[IGNORE_INDEX] * 3], [IGNORE_INDEX] * 4]
    assert batch.tokens == 1


def test_a_slice_of_a_packed_batch_keeps_its_segments_and_counts_its_tokens() -> None:
    ids = np.arange(6).reshape(2, 3)
    batch = Batch(ids, np.full((2, 3), IGNORE_INDEX), np.array([[0, 0, PADDING], [0, 1, 2]]))
    assert batch.tokens == 5
    part = batch[1:]
    assert part.segment_ids is not None
    assert (part.inputs.tolist(), part.segment_ids.tolist(), part.tokens) == ([[3, 4, 5]], [[0, 1, 2]], 3)
