"""Instructions for the rows of a file of responses."""

from collections.abc import Iterator
from typing import Any

from config import SampleInstructConfig
from formats.pairs import INPUTS, INSTRUCTIONS, MESSAGES, RESPONSE_FIELDS, clean_text, response_from_row
from formats.tolerant_rows import Row
from sampling.engine import Engine, Request
from sampling.generation import GeneratedText, ResponsePrompter
from sampling.prompt_settings import sampling_params
from system.errors import UserError


def generate_instructions(
    config: SampleInstructConfig, engine: Engine, prompter: ResponsePrompter, rows: Iterator[Row | str], done: int
) -> Iterator[Row]:
    """Each row with its candidates, the most likely one as its instruction. Rows come in order, whichever is finished first."""
    waiting: dict[int, Row] = {}  # by index: rows that were read, and are not yet yielded
    requested: list[int] = []  # the index of the row of each request
    texts: dict[int, list[GeneratedText]] = {}
    upcoming = 0  # the index of the row to yield next

    def requests() -> Iterator[Request]:
        for index, read in enumerate(rows):
            fields, response = extra_fields(read), None if isinstance(read, str) else response_from_row(read)
            try:
                if isinstance(read, str):
                    raise UserError(read)
                if not isinstance(response, str):
                    raise UserError(f"no text in {' or '.join(RESPONSE_FIELDS)}")
                request, notice = prompter.request(response, config.num_samples, config.max_new_tokens)
            except (UserError, UnicodeEncodeError) as error:
                waiting[index] = {**fields, "error": str(error)}
                continue
            waiting[index] = {**fields, "response": clean_text(response), "cut": bool(notice)}
            texts[index] = [GeneratedText() for _ in range(config.num_samples)]
            requested.append(index)
            yield request._replace(seed_key=done + index)  # a resumed run gives a row the same instruction

    for event in engine.run(requests(), sampling_params(config), prompter.stop_ids):
        index = requested[event.request]
        texts[index][event.sample].add(event)
        while upcoming in waiting and all(text.finish_reason for text in texts.get(upcoming, [])):
            yield _result(waiting.pop(upcoming), texts.pop(upcoming, []), prompter)
            upcoming += 1
    while upcoming in waiting:  # rows with errors after the last generated one
        yield waiting.pop(upcoming)
        upcoming += 1


def extra_fields(read: Row | str) -> Row:
    """The fields of a row that its result keeps: all but those of a pair and of an earlier result."""
    dropped = (*INSTRUCTIONS, *INPUTS, *RESPONSE_FIELDS, MESSAGES, "error", "candidates")
    return {} if isinstance(read, str) else {name: value for name, value in read.items() if name not in dropped}


def _result(row: Row, texts: list[GeneratedText], prompter: ResponsePrompter) -> Row:
    if "error" in row:
        return row
    found: list[dict[str, Any]] = [
        {
            "instruction": prompter.text("", text.ids),
            "logprob_per_token": round(text.logprob_per_token, 5),
            "tokens": text.tokens,
            "complete": text.finish_reason == "stop",
        }
        for text in sorted(texts, key=lambda text: -text.logprob_per_token)
    ]
    return {**row, **found[0], **({"candidates": found} if len(found) > 1 else {})}
