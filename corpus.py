"""Documents out of hub data sets and local files, as one stream that can be entered anywhere.

Both kinds of source are files of rows: of the hub, the shards of a streaming data set. A position is (file, row), so a run
that was killed opens the file it stopped in and not the ones before.
"""

import itertools
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from config import PreprocessConfig
from errors import UserError, first_line
from files import BATCH_ROWS, batch_rows, cutting_place, find_files, read_json, read_parquet, read_text, require_fields
from text import decode, normalise_line_ends

SAMPLED_FILES = 16  # at most so many files are opened for the tokenizer's sample
SILENCE_SECONDS = 30  # without a byte from the hub, and the connection counts as lost


class Position(NamedTuple):
    """Where to read on."""

    file: int
    row: int


class Document(NamedTuple):
    """A text, or one of the parts of a text that was too long."""

    text: bytes | None  # None: the source holds something that is not text
    continues: bool  # it is a part that goes on with the one before


class HubTrouble(ConnectionError):
    """The hub cannot be reached, broke off, or answered that it cannot just now."""

    def __init__(self, message: str, pause: int = 0) -> None:
        super().__init__(message)
        self.pause = pause  # seconds that the hub asks to wait


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
        pause = max(2**self._used, getattr(error, "pause", 0))
        print(f"{trouble}: {first_line(error)}. Trying again in {pause} s")
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
    revision: str = ""  # the commit of a data set on the hub

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
                if (text := decode(part.text)) and not text.isspace():
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
            except HubTrouble as error:
                patience.wait(f"lost the connection while reading {self.names[file]}", error)

    def _cut(self, document: Document) -> list[Document]:
        if document.text is None:
            return [document]
        text, continues, start = normalise_line_ends(document.text), document.continues, 0
        parts = []
        while len(text) - start > self.max_document_bytes:
            end = cutting_place(text, self.max_document_bytes, start)
            parts.append(Document(text[start:end], continues))
            start, continues = end, True
        return [*parts, Document(text[start:], continues)]


def open_corpus(config: PreprocessConfig, revision: str = "") -> Corpus:
    """The stream of documents that the flags ask for; of a data set on the hub, as it was at a revision or is now."""
    if config.input:
        names, open_file = _open_local(config)
    else:
        revision, names, open_file = _open_hub(config, revision)
    return Corpus(names, open_file, config.max_document_bytes, config.retries, revision)


def _open_local(config: PreprocessConfig) -> tuple[tuple[str, ...], Callable[[int, int], Iterator[Document]]]:
    names = tuple(str(file) for file in find_files(config.input))

    def open_file(file: int, row: int) -> Iterator[Document]:
        return itertools.islice(_read_file(names[file], config.field, config.max_document_bytes), row, None)

    return names, open_file


def _read_file(path: str, field: str, limit: int) -> Iterator[Document]:
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


def _open_hub(config: PreprocessConfig, revision: str) -> tuple[str, tuple[str, ...], Callable[[int, int], Iterator[Document]]]:
    import datasets  # takes a second: only where it is used
    import pyarrow
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    _let_troubles_through()
    passing_errors = (ConnectionError, TimeoutError, httpx.RequestError)
    lasting_errors = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, pyarrow.ArrowException)
    name = config.dataset + (f" ({config.subset})" if config.subset else "")
    patience = Patience(config.retries)
    while True:
        try:
            builder = datasets.load_dataset_builder(config.dataset, config.subset or None, revision=revision or None)
            dataset = builder.as_streaming_dataset(split=config.split)
            break
        except passing_errors as error:
            if datasets.config.HF_HUB_OFFLINE:
                raise UserError(f"cannot reach {name}: HF_HUB_OFFLINE is set. Unset it, or read local files with --input") from error
            patience.wait(f"cannot reach {name} on the hub", error)
        except datasets.exceptions.DatasetNotFoundError as error:
            raise UserError(f"{first_line(error)} Check --dataset, or read local files with --input") from error
        except lasting_errors as error:  # an unknown configuration or split, for one; the message lists the ones there are
            raise UserError(f"{name}, split {config.split!r}: {textwrap.shorten(str(error), 1000)}") from error
    if dataset.features is not None:
        require_fields([config.field], list(dataset.features), name)
        dataset = dataset.select_columns([config.field])
    names = tuple(f"{name}, file {index + 1} of {dataset.num_shards}" for index in range(dataset.num_shards))

    def open_file(file: int, row: int) -> Iterator[Document]:
        # As Arrow tables: made into Python strings by the library, one invalid byte would end the run.
        try:
            for table in dataset.shard(len(names), file).skip(row).with_format("arrow").iter(BATCH_ROWS):
                require_fields([config.field], table.column_names, names[file])
                yield from (Document(entry[config.field], False) for entry in batch_rows(table, [config.field], names[file]))
        except HubTrouble:
            raise
        except passing_errors as error:
            raise HubTrouble(first_line(error)) from error
        except lasting_errors as error:
            raise UserError(f"{names[file]} cannot be read: {first_line(error)}") from error

    return builder.hash if builder.repo_id else "", names, open_file


def _let_troubles_through() -> None:
    """Have the libraries below raise at once what they would retry for minutes: `Patience` retries, and says so."""
    import datasets
    import huggingface_hub
    from huggingface_hub.utils import get_session, httpx, parse_ratelimit_headers  # type: ignore[attr-defined]

    class Client(httpx.Client):
        def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
            limits = request.extensions.get("timeout", {})
            request.extensions["timeout"] = {what: min(seconds or SILENCE_SECONDS, SILENCE_SECONDS) for what, seconds in limits.items()}
            try:
                response = super().send(request, **options)
            except httpx.RequestError as error:
                raise HubTrouble(f"{error or type(error).__name__} ({request.url.host})") from error
            if response.status_code in (408, 429) or response.status_code >= 500:
                response.close()
                quota, wish = parse_ratelimit_headers(response.headers), response.headers.get("retry-after", "")
                pause = quota.reset_in_seconds + 1 if quota and not quota.remaining else int(wish) if wish.isdecimal() else 0
                raise HubTrouble(f"{request.url.host} answers {response.status_code} {response.reason_phrase}", pause)
            return response

    hooks = get_session().event_hooks
    huggingface_hub.set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True))
    # Of files that lie elsewhere than on the hub:
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
