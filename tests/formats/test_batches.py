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


@given(size=st.integers(1, 30), seed=st.integers(0, 5), first=st.integers(0, 60), count=st.integers(0, 40))
def test_shuffled_indices_are_a_new_permutation_every_epoch(size: int, seed: int, first: int, count: int) -> None:
    order = shuffled_indices(size, seed, 0, 4 * size)
    for epoch in range(4):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert shuffled_indices(size, seed, first, count)[: max(0, 4 * size - first)] == order[first : first + count]
    assert size < 20 or order[:size] != order[size : 2 * size]


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
