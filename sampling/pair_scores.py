"""Scores of pairs: the log-probability of the instruction, given the response."""

from collections.abc import Iterator

from formats.pairs import pair_fields, pair_from_row
from formats.tolerant_rows import Row
from sampling.file_jobs import Job
from sampling.scored_rows import ROWS_PER_BATCH, Logprobs, Unscored, fit_pair, score_rows
from sampling.scoring import Scorer
from tokens.prompt_format import PromptFormat


def pair_scores_job(source: str, scorer: Scorer, prompt_format: PromptFormat) -> Job:
    """The job that scores a file of pairs."""

    def all_fields_of_pairs(names: list[str]) -> list[str]:
        pair_fields(names, source)  # refuses a file without pairs
        return names

    return Job(source, all_fields_of_pairs, lambda rows, done: score_pairs(scorer, prompt_format, rows, done), {"work": "scores"})


def score_pairs(
    scorer: Scorer, prompt_format: PromptFormat, rows: Iterator[Row | str], done: int = 0, rows_per_batch: int = ROWS_PER_BATCH
) -> Iterator[Row]:
    """Each pair with log P(instruction | response), and its gain over log P(instruction) without a response."""

    def prepare(row: Row) -> Unscored:
        instruction, response = fit_pair(prompt_format, pair_from_row(row), scorer.model.config.block_size)
        scored = [*instruction, *prompt_format.after_instruction]

        def fields(logprobs: Logprobs) -> Row:
            given, alone = logprobs
            return {
                "cut": response.is_cut,
                "logprob": round(float(given.sum()), 4),
                "logprob_per_token": round(float(given.mean()), 5),
                "logprob_gain": round(float(given.sum() - alone.sum()), 4),
                "tokens": len(given),
            }

        return Unscored([(prompt_format.prompt(response.ids), scored), (prompt_format.prompt([]), scored)], fields)

    return score_rows(scorer, rows, done, prepare, rows_per_batch)
