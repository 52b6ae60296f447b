"""Packing: nothing is lost, no bin is overfull, and the best fit is chosen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.packing import pack


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300))
def test_every_item_is_in_one_bin_and_no_bin_is_overfull(lengths: list[int]) -> None:
    bins = pack(lengths, 50)
    assert sorted(index for items in bins for index in items) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in items) for items in bins]
    assert max(loads) <= 50
    assert len(bins) < 2 or sum(sorted(loads)[:2]) > 50  # no two bins could have been one


def test_an_item_goes_into_the_bin_that_it_fills_best() -> None:
    assert pack([6, 5, 4, 3], 10) == [[0, 2], [1, 3]]  # the 4 goes to the 6, though the 5 has room for it too
    assert pack([13, 10, 8, 2], 20) == [[0], [1, 2, 3]]  # the first bin with room would be that of the 13
    assert pack([10, 10, 1], 10) == [[0], [1], [2]]


def test_an_item_larger_than_a_bin_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="does not fit"):
        pack([11], 10)
