"""Instructions for the rows of a file of responses."""

from collections.abc import Iterator
from typing import Any

from config import SampleInstructConfig
from formats.pairs import GENERATED, RESPONSE_FIELDS, RESPONSES, clean_text, response_fields, response_from_row
from formats.tolerant_rows import Row
from formats.utf8 import is_unicode
from sampling.engine import Engine, Request
from sampling.file_jobs import Job
from sampling.generation import GeneratedText, ResponsePrompter
from sampling.sampler import sampling_params
from system.errors import UserError

ADDED = ("row", "error", "candidates", GENERATED, "logprob_per_token", "tokens", "complete", "cut")


def instructions_job(config: SampleInstructConfig, engine: Engine, prompter: ResponsePrompter) -> Job:
    """The job that finds an instruction for each response of a file."""

    def work(rows: Iterator[Row | str], done: int) -> Iterator[Row]:
        yield from generate_instructions(config, engine, prompter, rows, done)
        if warning := engine.pop_warning():
            print(warning)

    names = ("num_samples", "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed")
    settings = {"work": "instructions"} | {name: getattr(config, name) for name in names}
    return Job(config.input, response_fields, work, settings)


def generate_instructions(
    config: SampleInstructConfig, engine: Engine, prompter: ResponsePrompter, rows: Iterator[Row | str], done: int
) -> Iterator[Row]:
    """Each row with its candidates, the most likely one as its generated instruction. Rows come in order, whichever is finished first."""
    waiting: dict[int, Row] = {}  # by index: rows that were read, and are not yet yielded
    requested: list[int] = []  # the index of the row of each request
    texts: dict[int, list[GeneratedText]] = {}
    upcoming = 0  # the index of the row to yield next

    def requests() -> Iterator[Request]:
        for index, read in enumerate(rows):
            fields, response = kept_fields(read, done + index), None if isinstance(read, str) else response_from_row(read)
            try:
                if isinstance(read, str):
                    raise UserError(read)
                if not isinstance(response, str):
                    raise UserError(f"no text in {' or '.join(RESPONSE_FIELDS)}")
                if not is_unicode(response):
                    raise UserError("invalid UTF-8")
                request, notice = prompter.request(response, config.num_samples, config.max_new_tokens)
            except UserError as error:
                waiting[index] = {**fields, "error": str(error)}
                continue
            if not any(fields.get(name) for name in RESPONSES):  # as in a row of `text`: the result must be a pair
                fields["response"] = clean_text(response)
            waiting[index] = {**fields, "cut": bool(notice)}
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


def kept_fields(read: Row | str, index: int) -> Row:
    """The number of a row, from 1, and its fields; without those that an earlier job added."""
    fields: Row = {} if isinstance(read, str) else read
    dropped = ADDED if GENERATED in fields else ("row",)
    return {"row": index + 1, **{name: value for name, value in fields.items() if name not in dropped}}


def _result(row: Row, texts: list[GeneratedText], prompter: ResponsePrompter) -> Row:
    if "error" in row:
        return row
    found: list[dict[str, Any]] = [
        {
            GENERATED: prompter.text("", text.ids),
            "logprob_per_token": round(text.logprob_per_token, 5),
            "tokens": text.tokens,
            "complete": text.finish_reason == "stop",
        }
        for text in sorted(texts, key=lambda text: -text.logprob_per_token)
    ]
    return {**row, **found[0], **({"candidates": found} if len(found) > 1 else {})}
