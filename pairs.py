"""Instruction pairs out of rows, however their fields are spelled."""

import itertools
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from errors import BAD_FLAGS, UserError

INSTRUCTIONS = ("instruction", "prompt")
INPUTS = ("input", "context")
RESPONSES = ("output", "response", "completion")
MESSAGES = "messages"
COMPARED_CHARACTERS = 200  # of a normalised response: those that begin alike count as the same, for they may have been cut
RESPONSE_FIELDS = (*RESPONSES, "text")  # where there is no instruction


class Pair(NamedTuple):
    """An instruction, with its input where it has one, and the response to it."""

    instruction: str
    response: str
    trouble: str = ""  # why it cannot be used

    @property
    def size(self) -> int:
        """In bytes of UTF-8."""
        return 0 if self.trouble else len(self.instruction.encode()) + len(self.response.encode())


def fields_of_pairs(fields: list[str], source: str) -> list[str]:
    """Those of a source's fields in which pairs may lie; a source that has none is refused with the fields it has."""
    there = set(fields)
    if not (there & set(INSTRUCTIONS) and there & set(RESPONSES)) and MESSAGES not in there:
        raise UserError(
            f"{source} has {'the fields ' + ', '.join(fields) if fields else 'no fields'}. A pair is {' or '.join(INSTRUCTIONS)}, "
            f"{' or '.join(RESPONSES)} and, where there is one, {' or '.join(INPUTS)}; or {MESSAGES}",
            BAD_FLAGS,
        )
    return [name for name in fields if name in (*INSTRUCTIONS, *INPUTS, *RESPONSES, MESSAGES)]


def pair_of(row: Mapping[str, object] | None) -> Pair:
    """The pair that a row holds, cleaned: CRLF becomes LF, white space around a text goes, the input follows the instruction."""
    if row is None:
        return _unusable("not text")
    # Tables that were merged have every field, and null in those that a row does not use.
    instruction, response, given = (_first(row, names) for names in (INSTRUCTIONS, RESPONSES, INPUTS))
    if instruction is None or response is None:
        exchange = _last_exchange(row.get(MESSAGES))
        if exchange is None:
            return _unusable("no pair in the row")
        (instruction, response), given = exchange, None
    texts = [clean(text) for text in (instruction, response, given or "") if isinstance(text, str)]
    if len(texts) < 3:
        return _unusable("not text")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return _unusable("invalid UTF-8")
    if not texts[0]:
        return _unusable("empty instruction")
    if not texts[1]:
        return _unusable("empty response")
    return Pair(" ".join(filter(None, (texts[0], texts[2]))), texts[1])


def response_of(row: Mapping[str, object]) -> object:
    """What a row holds that an instruction can be found for: a response, a text, or an assistant's last answer."""
    found = _first(row, RESPONSE_FIELDS)
    if found is None and (exchange := _last_exchange(row.get(MESSAGES))):
        found = exchange[1]
    return found


def clean(text: str) -> str:
    """A text of a pair as it is meant: what a person would type at a prompt has no white space around it either."""
    return text.replace("\r\n", "\n").strip()


def normalise(response: str) -> str:
    """What counts as the same response: however it is spaced, composed, or written in capitals."""
    return " ".join(unicodedata.normalize("NFKC", response).casefold().split())


def _unusable(trouble: str) -> Pair:
    return Pair("", "", trouble)


def _first(row: Mapping[str, object], names: tuple[str, ...]) -> object:
    """The first of these fields that holds something; where all are empty, an empty one."""
    there = [row[name] for name in names if row.get(name) is not None]
    return next((value for value in there if value != ""), there[0] if there else None)


def _last_exchange(messages: object) -> tuple[object, object] | None:
    """What the user said last and the assistant's answer to it."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return None
    for said, answered in reversed(list(itertools.pairwise(messages))):
        if said.get("role") == "user" and answered.get("role") == "assistant":
            return said.get("content"), answered.get("content")
    return None
