"""Instructions for the rows of a file of responses."""

from collections.abc import Iterator

from config import SampleInstructConfig
from formats.pairs import RESPONSE_FIELDS, RESPONSES, clean_text, response_fields, response_from_row
from formats.rows import Row
from sampling.engine import Engine
from sampling.file_jobs import Job
from sampling.generated_rows import GivenTexts, generating_job
from sampling.generation import ResponsePrompter
from sampling.pair_scores import score_pairs
from sampling.scoring import Scorer


def instructions_job(config: SampleInstructConfig, engine: Engine, prompter: ResponsePrompter) -> Job:
    """The job that finds an instruction for each response of a file, and with --with-scores scores the two as a pair."""

    def score(rows: Iterator[Row], done: int) -> Iterator[Row]:
        return score_pairs(Scorer(engine.model, config.batch_size), prompter.prompt_format, rows, done, config.batch_size)

    def keep(fields: Row, response: str) -> Row:  # the result must be a pair, also of a row of `text`
        return {} if any(fields.get(name) for name in RESPONSES) else {"response": clean_text(response)}

    texts = GivenTexts(response_from_row, RESPONSE_FIELDS, response_fields, keep, best_first=True)
    if config.with_scores:
        return generating_job("instructions with scores", config, engine, prompter, texts, score)
    return generating_job("instructions", config, engine, prompter, texts, lambda rows, done: rows)
