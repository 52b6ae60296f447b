"""Single documents, or pairs, of a split, found by their boundaries."""

import numpy as np
from numpy.typing import NDArray

from formats.shards import Dataset, Split, damaged_dataset

SCANNED_IDS = 1 << 22  # ids scanned at a time


class DocumentReader:
    """The documents, or pairs, of a split. Each begins with its boundary, <|endoftext|>."""

    def __init__(self, dataset: Dataset, split: Split, boundary: int) -> None:
        self._stream = stream = dataset.stream(split)
        found = []
        for start in range(0, len(stream), SCANNED_IDS):
            ids = stream.read(start, SCANNED_IDS)
            found.append(start + np.flatnonzero(ids == boundary))
        self.starts = np.concatenate([*found, [len(stream)]])
        documents = sum(shard.documents for shard in dataset.shards(split))
        if len(self) != documents or self.starts[0] != 0:
            problem = f"they hold {len(self):,} {dataset.content}" if self.starts[0] == 0 else "they do not begin with a boundary"
            what = f"the shards in {dataset.folder} are damaged: {problem}, meta.json has {documents:,}"
            raise damaged_dataset(dataset.folder, what, dataset.content)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def read(self, index: int) -> NDArray[np.int64]:
        """The ids of a document, its boundary first."""
        return self._stream.read(int(self.starts[index]), int(self.starts[index + 1] - self.starts[index]))
