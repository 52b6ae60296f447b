"""Instruction pairs in rows, under any of the usual field names."""

import itertools
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from system.errors import BAD_FLAGS, UserError

GENERATED = "generated_instruction"  # found by a model
INSTRUCTIONS = ("instruction", "prompt")
INPUTS = ("input", "context")
RESPONSES = ("output", "response", "completion")
ANSWERS = "answers"  # several responses to one instruction, to be ranked
MESSAGES = "messages"
COMPARED_CHARACTERS = 200  # of a normalized response: equal beginnings count as the same response, since either may be cut
RESPONSE_FIELDS = (*RESPONSES, "text")  # in files without instructions


class Pair(NamedTuple):
    """An instruction, with its input if it has one, and the response to it."""

    instruction: str
    response: str
    trouble: str = ""  # why it cannot be used; empty if it can

    @property
    def size(self) -> int:
        """Bytes of UTF-8."""
        return 0 if self.trouble else len(self.instruction.encode()) + len(self.response.encode())


def pair_fields(fields: list[str], source: str) -> list[str]:
    """The fields that may hold pairs; a source without any is refused, and its fields are named."""
    there = set(fields)
    if not (there & {*INSTRUCTIONS, GENERATED} and there & set(RESPONSES)) and MESSAGES not in there:
        raise UserError(
            f"{source} has {'the fields ' + ', '.join(fields) if fields else 'no fields'}. A pair needs {' or '.join(INSTRUCTIONS)}, "
            f"{' or '.join(RESPONSES)} and optionally {' or '.join(INPUTS)}; or else {MESSAGES}",
            BAD_FLAGS,
        )
    return [name for name in fields if name in (GENERATED, *INSTRUCTIONS, *INPUTS, *RESPONSES, MESSAGES)]


def pair_from_row(row: Mapping[str, object] | None, generated: bool = True) -> Pair:
    """The pair in a row; with the instruction that a model generated for it, if there is one and `generated` allows it.

    Cleaned: CRLF becomes LF, surrounding white space is removed, the input is appended to the instruction.
    """
    if row is None:
        return _unusable("not text")
    # Merged tables have every field, with null in those that a row does not use.
    instruction, response, given = (_first(row, names) for names in (INSTRUCTIONS, RESPONSES, INPUTS))
    if generated and row.get(GENERATED):
        instruction, given = row[GENERATED], None  # the input belongs to the other instruction
    if instruction is None or response is None:
        exchange = _last_exchange(row.get(MESSAGES))
        if exchange is None:
            return _unusable("no pair in the row")
        (instruction, response), given = exchange, None
    texts = [clean_text(text) for text in (instruction, response, given or "") if isinstance(text, str)]
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


def pairs_with_answers(row: Mapping[str, object]) -> list[Pair]:
    """The instruction of a row, paired with each of its answers; a row without a usable list of answers has none."""
    instruction = {name: row[name] for name in (*INSTRUCTIONS, *INPUTS) if name in row}
    answers = row.get(ANSWERS)
    return [pair_from_row({**instruction, RESPONSES[0]: answer}) for answer in answers] if isinstance(answers, list) else []


def response_from_row(row: Mapping[str, object]) -> object:
    """The response in a row to find an instruction for: a response, a text, or the last answer of an assistant."""
    found = _first(row, RESPONSE_FIELDS)
    if found is None and (exchange := _last_exchange(row.get(MESSAGES))):
        found = exchange[1]
    return found


def clean_text(text: str) -> str:
    """A text of a pair without surrounding white space, as a person would type it at a prompt."""
    return text.replace("\r\n", "\n").strip()


def normalize_response(response: str) -> str:
    """Responses are the same if these are equal: spacing, Unicode composition and case do not count."""
    return " ".join(unicodedata.normalize("NFKC", response).casefold().split())


def _unusable(trouble: str) -> Pair:
    return Pair("", "", trouble)


def _first(row: Mapping[str, object], names: tuple[str, ...]) -> object:
    """The first of these fields that is not empty; if all are, an empty one."""
    there = [row[name] for name in names if row.get(name) is not None]
    return next((value for value in there if value != ""), there[0] if there else None)


def _last_exchange(messages: object) -> tuple[object, object] | None:
    """The last user message that was answered, and its answer."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return None
    for said, answered in reversed(list(itertools.pairwise(messages))):
        if said.get("role") == "user" and answered.get("role") == "assistant":
            return said.get("content"), answered.get("content")
    return None


def response_fields(fields: list[str]) -> list[str]:
    """All fields of a table; one without responses is refused."""
    if not set(fields) & {*RESPONSE_FIELDS, MESSAGES}:
        raise UserError(
            f"--input has the fields {', '.join(fields)}; a response is expected in {' or '.join(RESPONSE_FIELDS)}, or in {MESSAGES}"
        )
    return fields


def answer_fields(fields: list[str], source: str) -> list[str]:
    """All fields of a table; one without answers to instructions is refused."""
    if ANSWERS not in fields or not set(fields) & set(INSTRUCTIONS):
        raise UserError(f"{source} has the fields {', '.join(fields)}. It needs {' or '.join(INSTRUCTIONS)}, and {ANSWERS}", BAD_FLAGS)
    return fields
