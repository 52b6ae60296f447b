"""Single documents, or pairs, of a split, found by their boundaries."""

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from formats.shards import Dataset, Split, damaged_dataset
from formats.token_stream import ID_DTYPE, TokenStream

SCANNED_IDS = 1 << 22  # ids scanned at a time


class DocumentReader:
    """The documents, or pairs, of a split. Each begins with its boundary, <|endoftext|>."""

    def __init__(self, dataset: Dataset, split: Split, boundary: int) -> None:
        self._stream = stream = dataset.stream(split)
        self.starts = np.append(self.places_of(boundary), len(stream))
        documents = sum(shard.documents for shard in dataset.shards(split))
        if len(self) != documents or self.starts[0] != 0:
            problem = f"they hold {len(self):,} {dataset.content}" if self.starts[0] == 0 else "they do not begin with a boundary"
            what = f"the shards in {dataset.folder} are damaged: {problem}, meta.json has {documents:,}"
            raise damaged_dataset(dataset.folder, what, dataset.content)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def places_of(self, id: int) -> NDArray[np.int64]:
        """Where in the stream an id stands."""
        parts = [np.empty(0, np.int64)]
        for start in range(0, len(self._stream), SCANNED_IDS):
            parts.append(start + np.flatnonzero(self._stream.read(start, SCANNED_IDS) == id))
        return np.concatenate(parts)

    def read(self, index: int) -> NDArray[np.int64]:
        """The ids of a document, its boundary first."""
        return self._stream.read(int(self.starts[index]), int(self.starts[index + 1] - self.starts[index]))


def scan_documents(stream: TokenStream, boundary: int, lengths: Collection[int]) -> Iterator[NDArray[np.uint16]]:
    """The ids, without their boundary, of all documents of these lengths, in memory for a part of the stream and its longest document."""
    wanted = np.array(sorted(lengths))
    rest = np.empty(0, ID_DTYPE)  # the beginning of a document that goes on
    for start in range(0, len(stream), SCANNED_IDS):
        count = min(SCANNED_IDS, len(stream) - start)
        ids = np.concatenate([rest, stream.read_windows(np.array([start]), count)[0]])
        is_last = start + count == len(stream)
        bounds = np.concatenate([np.flatnonzero(ids == boundary), [len(ids)] if is_last else []]).astype(np.int64)
        for place in np.flatnonzero(np.isin(np.diff(bounds) - 1, wanted)).tolist():
            yield ids[bounds[place] + 1 : bounds[place + 1]]
        rest = ids[bounds[-1] :] if len(bounds) else ids
