"""Generated texts for rows: the model works on many rows at once, and each row gets its own."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from config import SamplerConfig
from formats.rows import Row
from formats.utf8 import is_unicode
from sampling.engine import Engine, Request
from sampling.file_jobs import Job
from sampling.generation import GeneratedText, Prompter, generate_samples, text_as_row
from sampling.sampler import sampling_params
from system.errors import UserError
from system.escapes import tell

ADDED = ("row", "error", "candidates", "logprob_per_token", "tokens", "complete", "cut")
SETTINGS = ("num_samples", "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed")  # that a resumed run must share


class GivenTexts(NamedTuple):
    """Which text of a row is given to the model."""

    find: Callable[[Row], object]
    names: tuple[str, ...]  # of the fields that it can be in
    wanted: Callable[[list[str]], list[str]]  # the fields to read of a table, which is refused if it has none
    keep: Callable[[Row, str], Row]  # the fields that a row gets if it does not have the text under a name that others know
    best_first: bool  # sort several texts by score


def generating_job(
    work_name: str,
    config: SamplerConfig,
    engine: Engine,
    prompter: Prompter,
    texts: GivenTexts,
    then: Callable[[Iterator[Row], int], Iterator[Row]],
) -> Job:
    """The job that generates for each row of a file; `then` says what becomes of the results, and how many there were before."""

    def work(rows: Iterator[Row | str], done: int) -> Iterator[Row]:
        yield from then(generate_rows(config, engine, prompter, texts, rows, done), done)
        if warning := engine.pop_warning():
            tell(warning)

    settings = {"work": work_name} | {name: getattr(config, name) for name in SETTINGS}
    return Job(config.input, texts.wanted, work, settings, config.encoding, prompter.given_field)


def generate_rows(
    config: SamplerConfig, engine: Engine, prompter: Prompter, texts: GivenTexts, rows: Iterator[Row | str], done: int
) -> Iterator[Row]:
    """Each row with its generated text, and with all of them if there are several."""
    waiting: deque[tuple[Row, str | None]] = deque()  # rows that were read and not yet yielded, with the given text; None: an error

    def requests() -> Iterator[Request]:
        for index, read in enumerate(rows, start=done):
            fields, given = kept_fields(read, index, prompter.generated_field), None if isinstance(read, str) else texts.find(read)
            try:
                if isinstance(read, str):
                    raise UserError(read)
                if not isinstance(given, str):
                    raise UserError(f"no text in {' or '.join(texts.names)}")
                if not is_unicode(given):
                    raise UserError("invalid UTF-8")
                request, notice = prompter.request(given, config.num_samples, config.max_new_tokens)
            except UserError as error:
                waiting.append(({**fields, "error": str(error)}, None))
                continue
            waiting.append(({**fields, **texts.keep(fields, given), "cut": bool(notice)}, given))
            yield request._replace(seed_key=index)  # a resumed run gives a row the same text

    for samples in generate_samples(engine, requests(), sampling_params(config), prompter.stop_ids):
        while waiting[0][1] is None:
            yield waiting.popleft()[0]
        row, given = waiting.popleft()
        yield row | _result(prompter, given or "", samples, texts.best_first)
    yield from (row for row, _ in waiting)  # with errors, after the last generated one


def kept_fields(read: Row | str, index: int, generated_field: str) -> Row:
    """The number of a row, from 1, and its fields; without those that an earlier job added."""
    fields: Row = {} if isinstance(read, str) else read
    dropped = (*ADDED, generated_field) if generated_field in fields else ("row",)
    return {"row": index + 1, **{name: value for name, value in fields.items() if name not in dropped}}


def _result(prompter: Prompter, given: str, samples: list[GeneratedText], best_first: bool) -> Row:
    ordered = sorted(samples, key=lambda text: -text.logprob_per_token) if best_first else samples
    found = [text_as_row(prompter, given, text) for text in ordered]
    return found[0] | ({"candidates": found} if len(found) > 1 else {})
