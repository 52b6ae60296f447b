"""Documents and instruction pairs out of hub data sets and local files, as one stream that can be entered anywhere.

Both kinds of source are files of rows: of the hub, the shards of a streaming data set. A position is (file, row), so a run
that was killed opens the file it stopped in and not the ones before.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from config import InstructConfig, PreprocessConfig
from files import (
    ENDINGS,
    ROW_ENDINGS,
    batch_rows,
    cutting_place,
    find_files,
    read_json,
    read_parquet,
    read_parquet_rows,
    read_text,
    require_fields,
    table_rows,
)
from hub import HubTrouble, Patience, open_hub
from pairs import Pair, fields_of_pairs, pair_of
from text import decode, normalise_line_ends

SAMPLED_FILES = 16  # at most so many files are opened for the tokenizer's sample

Item = TypeVar("Item")


class Position(NamedTuple):
    """Where to read on."""

    file: int
    row: int


class Document(NamedTuple):
    """A text, or one of the parts of a text that was too long."""

    text: bytes | None  # None: the source holds something that is not text
    continues: bool  # it is a part that goes on with the one before

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.text or b"")


@dataclass(frozen=True)
class Corpus(Generic[Item]):
    """A stream of items, of which a row of the source holds one or several."""

    names: tuple[str, ...]  # of its files, for messages
    open_file: Callable[[int, int], Iterator[list[Item]]]  # the rows of file number .. from row number .. on
    retries: int = 0
    revision: str = ""  # the commit of a data set on the hub

    def read(self, start: Position) -> Iterator[tuple[list[Item], Position]]:
        """The rows from `start` on, each with the position after it."""
        for file in range(start.file, len(self.names)):
            row = start.row if file == start.file else 0
            for items in self.rows(file, row):
                row += 1
                yield items, Position(file, row)

    def rows(self, file: int, row: int = 0) -> Iterator[list[Item]]:
        """The rows of a file from `row` on; a lost connection is taken up again where it broke."""
        patience = Patience(self.retries)
        while True:
            try:
                for items in self.open_file(file, row):
                    yield items
                    row += 1
                    patience.restore()
                return
            except HubTrouble as error:
                patience.wait(f"lost the connection while reading {self.names[file]}", error)


def sample(corpus: Corpus[Document], limit: int) -> Iterator[str]:
    """About `limit` bytes of text, from the beginnings of files spread over the source."""
    count = min(SAMPLED_FILES, len(corpus.names))
    for place in range(count):
        share = limit // (count - place)  # what a short file leaves goes to the later ones
        parts = itertools.chain.from_iterable(corpus.rows(place * len(corpus.names) // count))
        while share > 0 and (part := next(parts, None)):
            if (text := decode(part.text)) and not text.isspace():
                yield text
                size = len(text.encode())
                share, limit = share - size, limit - size


def open_documents(config: PreprocessConfig, revision: str = "") -> Corpus[Document]:
    """The stream of documents that the flags ask for; of a data set on the hub, as it was at a revision or is now."""
    field, limit = config.field, config.max_document_bytes

    def read_local(path: str) -> Iterator[list[Document]]:
        return (cut(document, limit) for document in _read_documents(path, field, limit))

    def read_table(table: Any, source: str) -> Iterator[list[Document]]:
        require_fields([field], table.column_names, source)
        return (cut(Document(row[field], False), limit) for row in batch_rows(table, [field], source))

    if config.input:
        return _local(config.input, read_local, ENDINGS)
    hub = open_hub(config, revision)
    if hub.fields is not None:
        require_fields([field], hub.fields, hub.name)

    def open_file(file: int, row: int) -> Iterator[list[Document]]:
        return itertools.chain.from_iterable(read_table(table, hub.names[file]) for table in hub.read(file, row, [field]))

    return Corpus(hub.names, open_file, config.retries, hub.revision)


def open_pairs(config: InstructConfig, revision: str = "") -> Corpus[Pair]:
    """The stream of instruction pairs that the flags ask for."""
    if config.input:
        return _local(config.input, _read_pairs, ROW_ENDINGS)
    hub = open_hub(config, revision)
    wanted = None if hub.fields is None else fields_of_pairs(hub.fields, hub.name)

    def open_file(file: int, row: int) -> Iterator[list[Pair]]:
        for table in hub.read(file, row, wanted):
            fields = wanted or fields_of_pairs(table.column_names, hub.names[file])
            yield from ([pair_of(row)] for row in table_rows(table.select(fields)))

    return Corpus(hub.names, open_file, config.retries, hub.revision)


def cut(document: Document, limit: int) -> list[Document]:
    """The document, or the parts of at most `limit` bytes that it is cut into."""
    if document.text is None:
        return [document]
    text, continues, start = normalise_line_ends(document.text), document.continues, 0
    parts = []
    while len(text) - start > limit:
        end = cutting_place(text, limit, start)
        parts.append(Document(text[start:end], continues))
        start, continues = end, True
    return [*parts, Document(text[start:], continues)]


def _local(inputs: tuple[str, ...], read: Callable[[str], Iterator[list[Item]]], endings: tuple[str, ...]) -> Corpus[Item]:
    names = tuple(str(file) for file in find_files(inputs, endings))
    return Corpus(names, lambda file, row: itertools.islice(read(names[file]), row, None))


def _read_documents(path: str, field: str, limit: int) -> Iterator[Document]:
    kind = path.lower()
    if kind.endswith(".parquet"):
        yield from (Document(row[field], False) for row in read_parquet(path, [field]))
    elif kind.endswith(".txt"):
        yield from (Document(text, continues) for text, continues in read_text(path, limit))
    else:
        for number, row in enumerate(read_json(path)):
            if number == 0:
                require_fields([field], list(row), path)
            text = row.get(field)
            yield Document(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None, False)


def _read_pairs(path: str) -> Iterator[list[Pair]]:
    if path.lower().endswith(".parquet"):
        yield from ([pair_of(row)] for row in read_parquet_rows(path, lambda fields: fields_of_pairs(fields, path)))
        return
    for number, row in enumerate(read_json(path)):
        if number == 0:
            fields_of_pairs(list(row), f"the first row of {path}")
        yield [pair_of(row)]
