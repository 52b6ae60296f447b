"""Documents out of hub data sets and local files, as one stream that can be entered anywhere.

Both kinds of source become a streaming data set of the `datasets` library whose shards are files. A position in it is
(file, row), so a run that was killed opens the file it stopped in and not the ones before.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from config import PreprocessConfig
from errors import UserError
from files import BATCH_ROWS, batch_rows, cutting_place, find_files, first_line, read_json, read_parquet, read_text, require_fields
from text import normalise_line_ends

SAMPLED_FILES = 16  # at most so many files are opened for the tokenizer's sample


class Position(NamedTuple):
    """Where to read on."""

    file: int
    row: int


class Document(NamedTuple):
    """A text, or one of the parts of a text that was too long."""

    text: bytes | None  # None: the source holds something that is not text
    continues: bool  # it is a part that goes on with the one before


class Patience:
    """What is left of the attempts to reach the hub: each pause is twice the one before."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._used = 0

    def wait(self, trouble: str, error: Exception) -> None:
        """Say what went wrong and pause, or give up."""
        if self._used == self._retries:
            raise UserError(
                f"{trouble}: {first_line(error)}. Gave up after {self._used} new attempts; what is done is kept. "
                "Run the same command again to go on, or read local files with --input"
            ) from error
        pause = 2**self._used
        print(f"{trouble}: {first_line(error)}. Trying again in {pause} s", flush=True)
        time.sleep(pause)
        self._used += 1

    def restore(self) -> None:
        self._used = 0


@dataclass(frozen=True)
class Corpus:
    """A stream of documents."""

    names: tuple[str, ...]  # of its files, for messages
    open_file: Callable[[int, int], Iterator[Document]]  # the rows of file number .. from row number .. on
    max_document_bytes: int
    retries: int

    def read(self, start: Position) -> Iterator[tuple[list[Document], Position]]:
        """The rows from `start` on, each as its document or the parts of it, with the position after it."""
        for file in range(start.file, len(self.names)):
            row = start.row if file == start.file else 0
            for document in self._rows(file, row):
                row += 1
                yield self._cut(document), Position(file, row)

    def sample(self, limit: int) -> Iterator[str]:
        """About `limit` bytes of text, from the beginnings of files spread over the source."""
        count = min(SAMPLED_FILES, len(self.names))
        for place in range(count):
            share = limit // (count - place)  # what a short file leaves goes to the later ones
            parts = (part for document in self._rows(place * len(self.names) // count, 0) for part in self._cut(document))
            while share > 0 and (part := next(parts, None)):
                if text := decode(part.text):
                    yield text
                    size = len(text.encode())
                    share, limit = share - size, limit - size

    def _rows(self, file: int, row: int) -> Iterator[Document]:
        """The rows of a file from `row` on; a lost connection is taken up again where it broke."""
        patience = Patience(self.retries)
        while True:
            try:
                for document in self.open_file(file, row):
                    yield document
                    row += 1
                    patience.restore()
                return
            except _connection_errors() as error:
                patience.wait(f"lost the connection while reading {self.names[file]}", error)

    def _cut(self, document: Document) -> list[Document]:
        if document.text is None:
            return [document]
        text, continues = normalise_line_ends(document.text), document.continues
        parts = []
        while len(text) > self.max_document_bytes:
            end = cutting_place(text, self.max_document_bytes)
            parts.append(Document(text[:end], continues))
            text, continues = text[end:], True
        return [*parts, Document(text, continues)]


def decode(text: bytes | None) -> str | None:
    """The text, or None where there is none or it is not valid UTF-8 (lone surrogates are not)."""
    try:
        return None if text is None else text.decode()
    except UnicodeDecodeError:
        return None


def open_corpus(config: PreprocessConfig) -> Corpus:
    """The stream of documents that the flags ask for."""
    names, open_file = _open_local(config) if config.input else _open_hub(config)
    return Corpus(names, open_file, config.max_document_bytes, config.retries)


def _open_local(config: PreprocessConfig) -> tuple[tuple[str, ...], Callable[[int, int], Iterator[Document]]]:
    import datasets  # takes a second: only where data is read, and not in the worker processes

    names = [str(file) for file in find_files(config.input)]
    features = datasets.Features({config.field: datasets.Value("large_binary"), "continues": datasets.Value("bool")})
    arguments = {"files": names, "field": config.field, "limit": config.max_document_bytes}
    dataset = datasets.IterableDataset.from_generator(_read_files, gen_kwargs=arguments, features=features)

    def open_file(file: int, row: int) -> Iterator[Document]:
        for entry in dataset.shard(len(names), file).skip(row):
            yield Document(entry[config.field], entry["continues"])

    return tuple(names), open_file


def _read_files(files: list[str], field: str, limit: int) -> Iterator[dict[str, Any]]:
    for path in files:
        if path.endswith(".parquet"):
            yield from ({**row, "continues": False} for row in read_parquet(path, [field]))
        elif path.endswith(".txt"):
            yield from ({field: text, "continues": continues} for text, continues in read_text(path, limit))
        else:
            for number, row in enumerate(read_json(path)):
                if number == 0:
                    require_fields([field], list(row), path)
                text = row.get(field)
                yield {field: text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None, "continues": False}


def _open_hub(config: PreprocessConfig) -> tuple[tuple[str, ...], Callable[[int, int], Iterator[Document]]]:
    import datasets

    # One place retries, with pauses that a person can see; the library's own 20 silent attempts would come first.
    datasets.config.STREAMING_READ_MAX_RETRIES = 1
    name = config.dataset + (f" ({config.subset})" if config.subset else "")
    patience = Patience(config.retries)
    while True:
        try:
            dataset = datasets.load_dataset(config.dataset, config.subset or None, split=config.split, streaming=True)
            break
        except datasets.exceptions.DatasetNotFoundError as error:
            raise UserError(f"{first_line(error)}. Check --dataset, or read local files with --input") from error
        except ValueError as error:  # an unknown configuration or split; the message lists the ones there are
            raise UserError(f"{name}, split {config.split!r}: {first_line(error)}") from error
        except _connection_errors() as error:
            patience.wait(f"cannot reach {name} on the hub", error)
    if dataset.features is not None:
        require_fields([config.field], list(dataset.features), name)
        dataset = dataset.select_columns([config.field])
    names = tuple(f"{name}, file {index + 1} of {dataset.num_shards}" for index in range(dataset.num_shards))

    def open_file(file: int, row: int) -> Iterator[Document]:
        # As Arrow tables: made into Python strings by the library, one invalid byte would end the run.
        for table in dataset.shard(len(names), file).skip(row).with_format("arrow").iter(BATCH_ROWS):
            yield from (Document(entry[config.field], False) for entry in batch_rows(table, [config.field], names[file]))

    return names, open_file


def _connection_errors() -> tuple[type[Exception], ...]:
    """What the libraries below raise when the hub cannot be reached, breaks off, or answers with an error of its own."""
    from datasets.utils.file_utils import CONNECTION_ERRORS_TO_RETRY

    return (OSError, *CONNECTION_ERRORS_TO_RETRY)
