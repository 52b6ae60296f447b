"""Damaged copies of a file: bytes changed, missing or added at places of every class (headers, lengths, names, contents, ends)."""

import random
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")
Places = Mapping[str, Sequence[tuple[int, int]]]  # for each class of bytes, the ranges that are of it

EXTREME = (0, 1, 127, 255, 256, 65_535, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 62) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
DIGITS = (b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"1e999", b"-1", b"0", b"9" * 400)
LONGEST = 64  # bytes that a change takes
MOST_REPEATS = 2000  # that are skipped before a file counts as exhausted


class Mutant(NamedTuple):
    """A damaged copy, and what was done to it."""

    what: str
    content: bytes


def byte_mutants(content: bytes, places: Places, count: int, seed: int = 0) -> Iterator[Mutant]:
    """So many damaged copies, no two alike, or as many as there are. Each class of bytes is hit equally often, however few it has."""
    chosen = random.Random(seed)
    classes = {name: found for name, ranges in places.items() if (found := [(start, end) for start, end in ranges if start < end])}
    seen, repeats, made = {hash(content)}, 0, 0
    while made < count and repeats < MOST_REPEATS:
        name = chosen.choice(sorted(classes))
        start, end = chosen.choice(classes[name])
        change = chosen.choice(CHANGES)
        damaged = change(chosen, content, chosen.randrange(start, end))
        repeats = repeats + 1 if hash(damaged) in seen else 0
        if not repeats:
            seen.add(hash(damaged))
            made += 1
            yield Mutant(f"{change.__name__.strip('_')} in {name} ({made} of seed {seed})", damaged)


def in_file(mutants: Iterable[Mutant], before: Sequence[bytes], after: Sequence[bytes]) -> Iterator[Mutant]:
    """The same as a line of a file, after and before other lines."""
    return (Mutant(what, b"\n".join([*before, line, *after, b""])) for what, line in mutants)


def intact(damaged: bytes, results: Mapping[bytes, Result]) -> list[Result]:
    """What comes of the lines of a damaged file that are as they were, each named with what comes of it in the sound one."""
    return [results[line] for line in damaged.split(b"\n") if line in results]


def are_among(wanted: Iterable[object], found: Iterable[object]) -> bool:
    """Whether all of them were found, in this order; others may lie between them."""
    remaining = iter(found)
    return all(any(each == other for other in remaining) for each in wanted)


def _flipped_bit(chosen: random.Random, content: bytes, place: int) -> bytes:
    return _with(content, place, bytes([content[place] ^ 1 << chosen.randrange(8)]))


def _other_bytes(chosen: random.Random, content: bytes, place: int) -> bytes:
    for _ in range(chosen.randint(1, 4)):
        content = _with(content, place, chosen.choice((bytes([chosen.randrange(256)]), b"\0", b"\xff")))
        place = min(len(content) - 1, place + chosen.randint(1, LONGEST))
    return content


def _extreme_number(chosen: random.Random, content: bytes, place: int) -> bytes:
    size = chosen.choice((1, 2, 4, 8))
    return _with(content, place, (chosen.choice(EXTREME) % (1 << 8 * size)).to_bytes(size, chosen.choice(("little", "big"))))


def _extreme_digits(chosen: random.Random, content: bytes, place: int) -> bytes:
    """In the place of the number there, if it is one that people can read."""
    start, end = place, place
    while start > 0 and content[start - 1 : start].isdigit():
        start -= 1
    while content[end : end + 1].isdigit():
        end += 1
    return content[:start] + chosen.choice(DIGITS) + content[end:]


def _cut_off(chosen: random.Random, content: bytes, place: int) -> bytes:
    return content[:place]


def _missing(chosen: random.Random, content: bytes, place: int) -> bytes:
    return content[:place] + content[place + chosen.randint(1, LONGEST) :]


def _missing_before(chosen: random.Random, content: bytes, place: int) -> bytes:
    return content[place:] if chosen.random() < 0.2 else content[max(0, place - 1 - chosen.randrange(LONGEST)) :]


def _repeated(chosen: random.Random, content: bytes, place: int) -> bytes:
    return content[:place] + content[place : place + chosen.randint(1, LONGEST)] * chosen.choice((1, 1, 100)) + content[place:]


def _inserted(chosen: random.Random, content: bytes, place: int) -> bytes:
    return content[:place] + chosen.randbytes(chosen.randint(1, LONGEST)) + content[place:]


def _emptied(chosen: random.Random, content: bytes, place: int) -> bytes:
    """As a disk leaves a block that it never wrote."""
    return _with(content, place, bytes(chosen.choice((8, 512, 4096))))


def _exchanged(chosen: random.Random, content: bytes, place: int) -> bytes:
    size, other = chosen.randint(1, LONGEST), chosen.randrange(len(content))
    one, two = content[place : place + size], content[other : other + size]
    return _with(_with(content, place, two), other, one)


def _appended(chosen: random.Random, content: bytes, place: int) -> bytes:
    return content + (content[place:] if chosen.random() < 0.5 else chosen.randbytes(LONGEST))


def _with(content: bytes, place: int, change: bytes) -> bytes:
    change = change[: len(content) - place]
    return content[:place] + change + content[place + len(change) :]


Change = Callable[[random.Random, bytes, int], bytes]
CHANGES: tuple[Change, ...] = (
    *(_flipped_bit, _other_bytes, _extreme_number, _extreme_digits, _cut_off, _missing, _missing_before),
    *(_repeated, _inserted, _emptied, _exchanged, _appended),
)


def ends(content: bytes, size: int = 16) -> Places:
    """The beginning, the end, and what is between them: of a file with a magic number and a trailer."""
    size = min(size, len(content) // 3)
    return {"beginning": [(0, size)], "contents": [(size, len(content) - size)], "end": [(len(content) - size, len(content))]}


def text_places(content: bytes) -> Places:
    """The punctuation, the numbers and the words of a text, and its ends."""
    kinds = {
        "punctuation": rb"[{}\[\]\":,\t\r\n]+",
        "numbers": rb"[0-9.+-]+",
        "words": rb"[A-Za-z_<>|]+",
        "other": rb"[^\x00-\x7f\\]+|\\.+?",
    }
    return {**ends(content), **{name: [match.span() for match in re.finditer(pattern, content)] for name, pattern in kinds.items()}}


def zip_places(path: Path) -> Places:
    """The headers, names, padding and contents of each member of an archive, and its directory."""
    size = path.stat().st_size
    places: dict[str, list[tuple[int, int]]] = {"headers": [], "names": [], "padding": [], "pickle": [], "tensors": [], "facts": []}
    with zipfile.ZipFile(path) as archive:
        data = path.read_bytes()
        for member in archive.infolist():
            name = member.header_offset + 30
            padding = name + int.from_bytes(data[name - 4 : name - 2], "little")
            start = padding + int.from_bytes(data[name - 2 : name], "little")
            kind = "pickle" if member.filename.endswith("data.pkl") else "tensors" if "/data/" in member.filename else "facts"
            places["headers"].append((member.header_offset, name))
            places["names"].append((name, padding))
            places["padding"].append((padding, start))
            places[kind].append((start, start + member.file_size))
        places["directory"] = [(archive.start_dir, size - 22)]
    return {**places, "end": [(size - 22, size)]}


def safetensors_places(content: bytes) -> Places:
    """The length of the header, the header and the tensors."""
    header = 8 + int.from_bytes(content[:8], "little")
    inner = text_places(content[8:header])
    return {
        "length": [(0, 8)],
        "tensors": [(header, len(content))],
        **{f"header: {name}": [(start + 8, end + 8) for start, end in ranges] for name, ranges in inner.items()},
    }


def protobuf_places(content: bytes, start: int = 0, depth: int = 2) -> dict[str, list[tuple[int, int]]]:
    """The tags and lengths, and the values, of the fields of a message and of the messages in it."""
    places: dict[str, list[tuple[int, int]]] = {"tags and lengths": [], "values": []}
    place = start
    while place < len(content):
        tag, value = _varint(content, place)
        kind, size = tag & 7, 0
        if kind == 0:
            end = _varint(content, value)[1]
        elif kind == 2:
            size, value = _varint(content, value)
            end = value + size
        else:
            end = value + (8 if kind == 1 else 4)
        places["tags and lengths"].append((place, value))
        places[f"values of field {tag >> 3}" if depth == 2 else "values"].append((value, end)) if depth < 2 or kind != 2 else None
        if depth == 2 and kind == 2:
            for name, ranges in protobuf_places(content[:end], value, 1).items():
                places.setdefault(f"field {tag >> 3}: {name}", []).extend(ranges)
        place = end
    return places


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[place] & 127) << shift
        shift, place = shift + 7, place + 1
        if content[place - 1] < 128:
            return value, place


def parquet_places(path: Path) -> Places:
    """The headers of the pages, the pages, and the footer with its length and the marks of the format."""
    import pyarrow.parquet

    size = path.stat().st_size
    footer = size - 8 - int.from_bytes(path.read_bytes()[-8:-4], "little")
    headers, pages = [], []
    group = pyarrow.parquet.read_metadata(path).row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        starts = sorted(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
        headers += [(start, start + 24) for start in starts]
        pages.append((starts[0], starts[0] + column.total_compressed_size))
    return {
        "marks": [(0, 4), (size - 4, size)],
        "length": [(size - 8, size - 4)],
        "page headers": headers,
        "pages": pages,
        "footer": [(footer, size - 8)],
    }
