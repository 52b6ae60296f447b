"""Packing: which items share a sequence, so that as little as possible is padding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pack(lengths: Sequence[int] | NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Indices of items, grouped into bins of this capacity by best fit decreasing.

    The longest item comes first; each goes into the bin that it leaves the least room in.
    """
    bins: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # bins by the room that is left in them
    open_rooms = 0  # bit r is set if some bin has room r
    for index in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[index])
        assert 0 < length <= capacity, f"an item of length {length} does not fit into a bin of {capacity}"
        fitting = open_rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = with_room[room].pop()
            if not with_room[room]:
                open_rooms ^= 1 << room
        else:
            room, chosen = capacity, len(bins)
            bins.append([])
        bins[chosen].append(index)
        room -= length
        if room:
            with_room[room].append(chosen)
            open_rooms |= 1 << room
    return bins
