"""Scores of pairs: the log-probability of the instruction, given the response."""

import itertools
from collections.abc import Iterator

from formats.pairs import Pair, pair_from_row
from formats.tolerant_rows import Row
from sampling.scoring import Scorer
from tokens.prompt_format import PromptFormat

PAIRS_PER_BATCH = 256


def score_pairs(scorer: Scorer, prompt_format: PromptFormat, rows: Iterator[Row | str], done: int = 0) -> Iterator[Row]:
    """Each pair with log P(instruction | response), and its gain over log P(instruction) without a response."""
    block_size = scorer.model.config.block_size
    while batch := list(itertools.islice(rows, PAIRS_PER_BATCH)):
        results: list[Row] = []
        sequences: list[tuple[list[int], list[int]]] = []
        for read in batch:
            done += 1
            fields = {} if isinstance(read, str) else {name: value for name, value in read.items() if name not in ("row", "error")}
            row: Row = {"row": done, **fields}
            pair = Pair("", "", read) if isinstance(read, str) else pair_from_row(read)
            if pair.trouble:
                earlier = None if isinstance(read, str) else read.get("error")  # of the job that made this file
                results.append({**row, "error": earlier or pair.trouble})
                continue
            instruction = prompt_format.encode(pair.instruction)
            response = prompt_format.fit_beside(instruction, pair.response, block_size)
            if response is None:
                trouble = f"the instruction has {len(instruction):,} tokens, too many for a context of {block_size} with its response"
                results.append({**row, "error": trouble})
                continue
            results.append({**row, "cut": response.is_cut})
            scored = [*instruction, *prompt_format.after_instruction]
            sequences += [(prompt_format.prompt(response.ids), scored), (prompt_format.prompt([]), scored)]
        scores = scorer.score(sequences)
        for result in results:
            if "error" not in result:
                given, alone = next(scores), next(scores)
                result["logprob"] = round(float(given.sum()), 4)
                result["logprob_per_token"] = round(float(given.mean()), 5)
                result["logprob_gain"] = round(float(given.sum() - alone.sum()), 4)
                result["tokens"] = len(given)
            yield result
