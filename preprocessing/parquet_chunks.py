"""Owns chunks of Parquet files: planned from the files' footers, and read by the workers themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from config import CHUNK_BYTES, CHUNK_DOCUMENTS, PreprocessConfig
from formats.parquet_files import read_range, row_groups
from formats.remote_files import is_remote
from preprocessing.chunks import Chunk
from preprocessing.retries import retry
from preprocessing.sources import Document, Position, Source, split_document

LARGEST_GROUP = 2 * CHUNK_DOCUMENTS  # a worker decodes a row group from its first row on


class Piece(NamedTuple):
    """Rows of one file."""

    path: str
    first: int
    last: int  # exclusive


@dataclass(frozen=True)
class UnreadDocuments:
    """The documents of some rows, read whenever somebody goes through them."""

    pieces: tuple[Piece, ...]
    field: str
    limit: int  # bytes of a document; a longer one is cut

    def __iter__(self) -> Iterator[Document]:
        for path, first, last in self.pieces:
            for text in read_range(path, self.field, first, last):
                yield from split_document(Document(text, False), self.limit)


def plan_chunks(source: Source[Document], config: PreprocessConfig, number: int, start: Position) -> Iterator[Chunk[Document]] | None:
    """The chunks from `number` on, which begins at `start`; None where the rows must be read one after the other to know them."""
    paths = source.parquet
    if not paths or max((rows for rows, _ in _groups(config, paths[0])), default=0) > LARGEST_GROUP:  # the other files will be alike
        return None
    return _chunks(config, paths, number, start)


def _groups(config: PreprocessConfig, path: str) -> list[tuple[int, int]]:
    """The row groups of a file, as its footer describes them."""
    return retry(config.retries, "the end of a file", lambda: row_groups(path, config.field))


def _chunks(config: PreprocessConfig, paths: tuple[str, ...], number: int, start: Position) -> Iterator[Chunk[Document]]:
    """Chunks of as many rows as read_chunks takes, or fewer where the footers say that they hold CHUNK_BYTES."""
    pieces: list[Piece] = []
    count, size = 0, 0.0
    end = start
    for file in range(start.file, len(paths)):
        row = 0
        for rows, text_bytes in _groups(config, paths[file]) if number < config.num_chunks else ():
            group_end = row + rows
            row = max(row, start.row if file == start.file else 0)
            while row < group_end and number < config.num_chunks:
                fitting = CHUNK_DOCUMENTS - count
                if text_bytes:
                    fitting = min(fitting, max(1, round((CHUNK_BYTES - size) * rows / text_bytes)))
                taken = min(fitting, group_end - row)
                pieces.append(Piece(paths[file], row, row + taken))
                row, count, size = row + taken, count + taken, size + taken * text_bytes / rows
                end = Position(file, row)
                if count == CHUNK_DOCUMENTS or size >= CHUNK_BYTES:
                    yield _chunk(config, number, pieces, end)
                    pieces, count, size, number = [], 0, 0.0, number + 1
            row = group_end
    if pieces:
        yield _chunk(config, number, pieces, end)


def _chunk(config: PreprocessConfig, number: int, pieces: list[Piece], end: Position) -> Chunk[Document]:
    joined = pieces[:1]
    for piece in pieces[1:]:
        if (piece.path, piece.first) == (joined[-1].path, joined[-1].last):
            joined[-1] = joined[-1]._replace(last=piece.last)
        else:
            joined.append(piece)
    start = f"{joined[0].path}, row {joined[0].first + 1}"
    found = [piece if is_remote(piece.path) else piece._replace(path=str(Path(piece.path).absolute())) for piece in joined]
    return Chunk(number, UnreadDocuments(tuple(found), config.field, config.max_document_bytes), start, end)
