"""The shards of a split as one sequence of ids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config import MAX_VOCAB_SIZE
from system.errors import UserError

ID_DTYPE = np.dtype("<u2")


class TokenStream:
    """One sequence of ids across the shards of a split."""

    def __init__(self, paths: Sequence[Path], lengths: Sequence[int], vocab_size: int = MAX_VOCAB_SIZE) -> None:
        self._paths = list(paths)
        self._vocab_size = vocab_size
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """`count` ids from `start` on, or fewer at the end.

        Each read maps its own window and unmaps it: mapped pages would count as memory of this process.
        """
        end = min(start + count, len(self))
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < end:
            length = min(end, int(self._starts[shard + 1])) - start
            offset = (start - int(self._starts[shard])) * ID_DTYPE.itemsize
            ids = np.array(np.memmap(self._paths[shard], ID_DTYPE, "r", offset, (length,)))
            if (largest := int(ids.max())) >= self._vocab_size:
                raise UserError(
                    f"{self._paths[shard]} is damaged: it has the id {largest}, and the vocabulary ends at {self._vocab_size - 1}. "
                    "Delete the folder and preprocess again"
                )
            parts.append(ids)
            start += length
            shard += 1
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
