"""Owns sources: documents and instruction pairs as one stream, from hub data sets or local files, readable from any position.

Both kinds of source are files of rows; on the hub, a file is a shard of the streaming data set. A position is (file, row), so
a resumed run opens the file where it stopped and skips the files before it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from config import InstructConfig, PreprocessConfig, SourceConfig
from formats.input_files import DOCUMENT_ENDINGS, ROW_ENDINGS, look_for_files
from formats.pairs import Pair, PairFields, pair_fields, pair_from_row
from formats.parquet_files import column_bytes, read_column, read_rows, table_rows
from formats.rows import Row, cutting_place, parse_json, read_text, require_fields
from formats.tables import LostLines, is_table, parse_table
from formats.utf8 import Utf8Rows, decode_utf8, normalize_line_endings
from preprocessing.hub import open_hub_dataset
from preprocessing.retries import Retries, retry
from preprocessing.split import text_hash
from preprocessing.wikitext import join_articles
from system.errors import UserError
from system.escapes import tell

SAMPLED_FILES = 16  # files opened for the tokenizer's sample, at most
NOTICES = 5  # about files, printed at most
UNREADABLE = "row that cannot be read"  # with --skip-bad-rows

Item = TypeVar("Item")


class Position(NamedTuple):
    """The next row to read."""

    file: int
    row: int


class Document(NamedTuple):
    """A text, or one part of a text that was too long."""

    text: bytes | None  # UTF-8, perhaps invalid; None: the row holds something other than text
    continues: bool  # it continues the part before it
    first_part_hash: int | None = None  # of a part that continues another: puts all parts of a document on the same side of the split
    trouble: str = ""  # why there is no text, if that is more than no text in a row

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.text or b"")


@dataclass(frozen=True)
class Source(Generic[Item]):
    """A stream of documents or pairs, one or several from each row."""

    names: tuple[str, ...]  # of its files, for messages
    open_file: Callable[[int, int], Iterator[list[Item]]]  # (file, first row) -> the items of each row
    retries: int = 0
    revision: str = ""  # commit of a hub data set
    parquet: tuple[str, ...] = ()  # paths or URLs of its files, if rows of them can be read on their own

    def read(self, start: Position) -> Iterator[tuple[list[Item], Position]]:
        """The items of each row from `start` on, with the position after the row."""
        for file in range(start.file, len(self.names)):
            row = start.row if file == start.file else 0
            for items in self.rows(file, row):
                row += 1
                yield items, Position(file, row)

    def rows(self, file: int, row: int = 0) -> Iterator[list[Item]]:
        """The items of each row of a file from `row` on. After a lost connection, reading resumes at the next row."""
        retries = Retries(self.retries)
        while True:
            try:
                for items in self.open_file(file, row):
                    yield items
                    row += 1
                    retries.restore()
                return
            except ConnectionError as error:
                retries.wait(f"lost the connection while reading {self.names[file]}", error)


def sample_text(source: Source[Document], limit: int) -> Iterator[str]:
    """About `limit` bytes of text, from the beginnings of files spread evenly over the source."""
    count = min(SAMPLED_FILES, len(source.names))
    for index in range(count):
        share = limit // (count - index)  # the later files make up for a short one
        parts = itertools.chain.from_iterable(source.rows(index * len(source.names) // count))
        while share > 0 and (part := next(parts, None)):
            if (text := decode_utf8(part.text)) and not text.isspace():
                yield text
                size = len(text.encode())
                share, limit = share - size, limit - size


def open_documents(config: PreprocessConfig, revision: str = "") -> Source[Document]:
    """The documents that the flags name; those of a hub data set at this revision, or the newest if it is empty."""
    field, limit = config.field, config.max_document_bytes

    def in_parts(documents: Iterator[Document]) -> Iterator[list[Document]]:
        """For each row its documents, each cut into parts."""
        if config.clean == "no":
            return (split_document(document, limit) for document in documents)
        rows = join_articles(document.text for document in documents)
        return ([part for text in row for part in split_document(Document(text, False), limit)] for row in rows)

    def read_file(path: str) -> Iterator[list[Document]]:
        return in_parts(_read_documents(path, config, notices))

    notices = Notices()
    if config.input:
        source = _files(config, read_file, DOCUMENT_ENDINGS)
        is_parquet = all(name.lower().endswith(".parquet") for name in source.names)
        return dataclasses.replace(source, parquet=source.names) if is_parquet and config.clean == "no" else source
    hub = open_hub_dataset(config, revision)
    if hub.fields is not None:
        require_fields([field], hub.fields, hub.name)

    def read_hub(file: int, row: int) -> Iterator[Document]:
        for table in hub.read(file, row, [field]):
            require_fields([field], table.column_names, hub.names[file])
            yield from (Document(text, False) for text in column_bytes(table, field, hub.names[file]))

    def open_file(file: int, row: int) -> Iterator[list[Document]]:
        if config.clean == "wikitext":  # an article may have begun before the row
            return itertools.islice(in_parts(read_hub(file, 0)), row, None)
        return in_parts(read_hub(file, row))

    parquet = hub.parquet if config.clean == "no" else ()
    return Source(hub.names, open_file, config.retries, hub.revision, parquet)


def open_pairs(config: InstructConfig, revision: str = "") -> Source[Pair]:
    """The instruction pairs that the flags name; those of a hub data set at this revision, or the newest if it is empty."""
    named = PairFields(config.instruction_field, config.input_field, config.response_field)
    if config.input:
        notices = Notices()
        return _files(config, lambda path: _read_pairs(path, config, named, notices), ROW_ENDINGS)
    hub = open_hub_dataset(config, revision)
    wanted = None if hub.fields is None else pair_fields(hub.fields, hub.name, named)

    def open_file(file: int, row: int) -> Iterator[list[Pair]]:
        for table in hub.read(file, row, wanted):
            fields = wanted or pair_fields(table.column_names, hub.names[file], named)
            yield from ([pair_from_row(row, named=named)] for row in table_rows(table.select(fields), hub.names[file]))

    return Source(hub.names, open_file, config.retries, hub.revision)


def split_document(document: Document, limit: int) -> list[Document]:
    """The document with LF line endings, cut into parts of at most `limit` bytes."""
    if document.text is None or (len(document.text) <= limit and b"\r" not in document.text):  # most of them
        return [document]
    text, continues, start = normalize_line_endings(document.text), document.continues, 0
    first_part_hash = document.first_part_hash
    parts = []
    while len(text) - start > limit:
        end = cutting_place(text, limit, start)
        parts.append(Document(text[start:end], continues, first_part_hash))
        first_part_hash = text_hash(text[:end]) if first_part_hash is None else first_part_hash
        start, continues = end, True
    return [*parts, Document(text[start:], continues, first_part_hash)]


class Notices:
    """What the files of a source have to say to a person, each once although a file is read twice."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, notice: str) -> None:
        """Print a notice, if there is one and it is new."""
        if notice and notice not in self._told and len(self._told) < NOTICES:
            tell(notice)
            self._told.add(notice)


def _files(config: SourceConfig, read: Callable[[str], Iterator[list[Item]]], endings: tuple[str, ...]) -> Source[Item]:
    found = retry(config.retries, "--input", lambda: look_for_files(config.input, endings))
    if found.notice:
        tell(found.notice)
    names = tuple(found.read)
    return Source(names, lambda file, row: itertools.islice(read(names[file]), row, None), config.retries)


def _read_documents(path: str, config: PreprocessConfig, notices: Notices) -> Iterator[Document]:
    kind, field = path.lower(), config.field
    if kind.endswith(".parquet"):
        yield from (Document(text, False) for text in read_column(path, field))
    elif kind.endswith(".txt"):
        checked = Utf8Rows(path, not config.skip_bad_rows)
        first_part = b""
        for part, continues in read_text(path, config.max_document_bytes, config.encoding):
            first_part = first_part if continues else part
            checked.add(part, continues=continues)
            yield Document(part, continues, text_hash(normalize_line_endings(first_part)) if continues else None)
        checked.finish()
        notices.tell(checked.notice)
    else:
        for row in _read_rows(path, config, lambda fields: require_fields([field], fields, path), notices):
            text = None if row is None else row.get(field)
            trouble = UNREADABLE if row is None else ""
            yield Document(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None, False, None, trouble)


def _read_pairs(path: str, config: InstructConfig, named: PairFields, notices: Notices) -> Iterator[list[Pair]]:
    if path.lower().endswith(".parquet"):
        rows = read_rows(path, lambda fields: pair_fields(fields, path, named))
        yield from ([pair_from_row(row, named=named)] for row in rows)
        return
    for row in _read_rows(path, config, lambda fields: pair_fields(fields, f"the first row of {path}", named), notices):
        yield [Pair("", "", UNREADABLE) if row is None else pair_from_row(row, named=named)]


def _read_rows(path: str, config: SourceConfig, check_fields: Callable[[list[str]], object], notices: Notices) -> Iterator[Row | None]:
    """The rows of JSON or of a table; None for a row that cannot be read and is skipped."""
    checked = Utf8Rows(path, not config.skip_bad_rows)
    are_checked = is_table(path)  # the names of the fields: those of the first row, or of a table's header
    rows = parse_table(path, check_fields, config.encoding, checked) if are_checked else parse_json(path, config.encoding, checked)
    for row in rows:
        if isinstance(row, UserError):
            if not config.skip_bad_rows:
                raise row
            notices.tell(str(row) if isinstance(row, LostLines) else "")
            yield None
            continue
        if not are_checked:
            check_fields(list(row))
        are_checked = True
        yield row
    notices.tell(checked.notice)
