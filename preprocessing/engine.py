"""Owns what an engine is: workers that encode chunks at the same time, on this machine or on a cluster."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from preprocessing.chunks import Chunk, Item
from preprocessing.journal import ChunkRecord
from system.errors import UserError, describe_os_error


class EncodeChunk(Protocol[Item]):
    """Encodes a chunk and writes its shards into a folder; called by a worker."""

    def __call__(self, chunk: Chunk[Item], folder: Path) -> ChunkRecord: ...


class Lost(NamedTuple):
    """What a worker answers that lost its connection while it read a chunk."""

    message: str
    pause: int  # seconds to wait before the next try


Result = ChunkRecord | Lost | str  # a string is an error that ends the run


class WorkerKilled(Exception):
    """A worker is gone, and its engine does not replace it; the message says what to do."""


class Engine(Protocol):
    """Workers that encode chunks at the same time."""

    def has_room(self) -> bool:
        """Whether a worker is free."""

    def is_busy(self) -> bool:
        """Whether a chunk is in progress."""

    def send(self, chunk: Chunk[Any]) -> None:
        """Give a chunk to a worker."""

    def receive(self) -> tuple[Chunk[Any], Result]:
        """Wait until a worker is done with a chunk, and what became of it."""

    def close(self) -> None:
        """End all workers at once."""


def encode(chunk: Chunk[Any], encode_chunk: EncodeChunk[Any], folder: Path) -> Result:
    """What a worker does with a chunk: whatever goes wrong is an answer too."""
    try:
        return encode_chunk(chunk, folder)
    except ConnectionError as error:
        return Lost(str(error), getattr(error, "pause", 0))
    except OSError as error:
        return f"{describe_os_error(error)}; finished chunks are kept"
    except UserError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  whatever it is, the main process shows it and ends the run
        return f"chunk {chunk.number}, which begins at {chunk.start}: {type(error).__name__}: {error}"
