"""Instruction pairs in rows, under any of the usual field names."""

import itertools
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from system.errors import BAD_FLAGS, UserError
from system.escapes import listed

GENERATED = "generated_instruction"  # found by a model
INSTRUCTIONS = ("instruction", "prompt", "question")
INPUTS = ("input", "context")
RESPONSES = ("output", "response", "completion", "answer")
CHOSEN = "chosen"  # the better response in preference data: a text, or messages
ANSWERS = "answers"  # several responses to one instruction, to be ranked
CHATS = ("messages", "conversations")  # fields with a list of messages: {role, content}, or {from, value} as ShareGPT has them
ROLES = {"human": "user", "gpt": "assistant"}  # other names of those who speak
TEXT_PARTS = ("text", "input_text", "output_text")  # types of the parts of a message that hold text
COMPARED_CHARACTERS = 200  # of a normalized response: equal beginnings count as the same response, since either may be cut
RESPONSE_FIELDS = (*RESPONSES, "text")  # in files without instructions


class PairFields(NamedTuple):
    """The fields of a pair that flags name; where one is empty, the usual fields count."""

    instruction: str = ""
    input: str = ""
    response: str = ""

    @property
    def instructions(self) -> tuple[str, ...]:
        """Where an instruction can be."""
        return (self.instruction,) if self.instruction else INSTRUCTIONS

    @property
    def inputs(self) -> tuple[str, ...]:
        """Where an input can be."""
        return (self.input,) if self.input else INPUTS

    @property
    def responses(self) -> tuple[str, ...]:
        """Where a response can be."""
        return (self.response,) if self.response else RESPONSES


USUAL = PairFields()


class Pair(NamedTuple):
    """An instruction, with its input if it has one, and the response to it."""

    instruction: str
    response: str
    trouble: str = ""  # why it cannot be used; empty if it can

    @property
    def size(self) -> int:
        """Bytes of UTF-8."""
        return 0 if self.trouble else len(self.instruction.encode()) + len(self.response.encode())


def pair_fields(fields: list[str], source: str, named: PairFields = USUAL) -> list[str]:
    """The fields that may hold pairs; a source without any, or without one that a flag names, is refused, and its fields are named."""
    there = set(fields)
    fields_there = f"the fields {listed(fields)}" if fields else "no fields"
    for flag, name in zip(named._fields, named, strict=True):
        if name and name not in there:
            raise UserError(f"--{flag}-field {name}: {source} has {fields_there}", BAD_FLAGS)
    has_instruction = there & {*named.instructions, *(() if named.instruction else (GENERATED,))}
    has_response = there & {*named.responses, *(() if named.response else (CHOSEN,))}
    has_both = not (named.instruction or named.response) and there & {*CHATS, CHOSEN}
    if not ((has_instruction and has_response) or has_both):
        raise UserError(
            f"{source} has {fields_there}. A pair needs {' or '.join(named.instructions)}, "
            f"{' or '.join(named.responses)} and optionally {' or '.join(named.inputs)}; or else {' or '.join((*CHATS, CHOSEN))}. "
            "Name others with --instruction-field, --response-field and --input-field of preprocess_instruct.py",
            BAD_FLAGS,
        )
    known = (GENERATED, *named.instructions, *named.inputs, *named.responses, *CHATS, CHOSEN, *INSTRUCTIONS)
    return [name for name in fields if name in known]


def pair_from_row(row: Mapping[str, object] | None, generated: bool = True, named: PairFields = USUAL) -> Pair:
    """The pair in a row; with the instruction that a model generated for it, if there is one and `generated` allows it.

    Cleaned: CRLF becomes LF, surrounding white space is removed, the input is appended to the instruction.
    """
    if row is None:
        return _unusable("not text")
    # Merged tables have every field, with null in those that a row does not use.
    instruction, response, given = (first_filled(row, names) for names in (named.instructions, named.responses, named.inputs))
    if response is None and not named.response and isinstance(row.get(CHOSEN), str):
        response = row[CHOSEN]
    if generated and row.get(GENERATED) and not named.instruction:
        instruction, given = row[GENERATED], None  # the input belongs to the other instruction
    if instruction is None or response is None:
        exchange = None if named.instruction or named.response else _exchange_in(row)
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
    found = first_filled(row, RESPONSE_FIELDS)
    if found is None and isinstance(row.get(CHOSEN), str):
        found = row[CHOSEN]
    if found is None and (exchange := _exchange_in(row)):
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


def first_filled(row: Mapping[str, object], names: tuple[str, ...]) -> object:
    """The first of these fields that is not empty; if all are, an empty one."""
    there = [row[name] for name in names if row.get(name) is not None]
    return next((value for value in there if value != ""), there[0] if there else None)


def _exchange_in(row: Mapping[str, object]) -> tuple[object, object] | None:
    """The last user message that was answered in the messages of a row, and its answer."""
    for name in CHATS:
        if exchange := _last_exchange(row.get(name)):
            return exchange
    chosen, prompt = row.get(CHOSEN), first_filled(row, INSTRUCTIONS)
    if not isinstance(chosen, list):
        return None
    return _last_exchange([*(prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]), *chosen])


def _last_exchange(messages: object) -> tuple[object, object] | None:
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return None
    for said, answered in reversed(list(itertools.pairwise(messages))):
        if (_role(said), _role(answered)) == ("user", "assistant"):
            return _content(said), _content(answered)
    return None


def _role(message: Mapping[str, object]) -> object:
    role = message.get("role") or message.get("from")
    return ROLES.get(role, role) if isinstance(role, str) else role


def _content(message: Mapping[str, object]) -> object:
    """The text of a message, joined from its parts if it has several; whatever it has if that is no text."""
    content = message.get("value") if message.get("content") is None else message["content"]
    if not isinstance(content, list) or not all(isinstance(part, Mapping) and part.get("type") in TEXT_PARTS for part in content):
        return content
    texts = [part.get("text") for part in content]
    return "".join(text for text in texts if isinstance(text, str)) if all(isinstance(text, str) for text in texts) else content


def response_fields(fields: list[str]) -> list[str]:
    """All fields of a table; one without responses is refused."""
    if not set(fields) & {*RESPONSE_FIELDS, *CHATS, CHOSEN}:
        raise UserError(
            f"--input has the fields {listed(fields)}; a response is expected in {' or '.join(RESPONSE_FIELDS)}, "
            f"or in {' or '.join((*CHATS, CHOSEN))}"
        )
    return fields


def answer_fields(fields: list[str], source: str) -> list[str]:
    """All fields of a table; one without answers to instructions is refused."""
    if ANSWERS not in fields or not set(fields) & set(INSTRUCTIONS):
        raise UserError(f"{source} has the fields {listed(fields)}. It needs {' or '.join(INSTRUCTIONS)}, and {ANSWERS}", BAD_FLAGS)
    return fields
