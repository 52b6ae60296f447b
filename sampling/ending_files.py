"""Texts for the rows of a file of endings."""

from config import SampleConfig
from formats.pairs import first_filled
from formats.rows import Row
from sampling.engine import Engine
from sampling.file_jobs import Job
from sampling.generated_rows import GivenTexts, generating_job
from sampling.generation import EndingPrompter
from system.errors import UserError
from system.escapes import listed

ENDING_FIELDS = ("prompt", "ending", "text")


def texts_job(config: SampleConfig, engine: Engine, prompter: EndingPrompter) -> Job:
    """The job that writes a text towards each ending of a file."""
    texts = GivenTexts(_ending_from_row, ENDING_FIELDS, _ending_fields, lambda fields, ending: {}, best_first=False)
    return generating_job("texts", config, engine, prompter, texts, lambda rows, done: rows)


def _ending_from_row(row: Row) -> object:
    return first_filled(row, ENDING_FIELDS)


def _ending_fields(fields: list[str]) -> list[str]:
    """All fields of a table; one without endings is refused."""
    if not {*ENDING_FIELDS} & {*fields}:
        raise UserError(f"--input has the fields {listed(fields)}; an ending is expected in {' or '.join(ENDING_FIELDS)}")
    return fields
