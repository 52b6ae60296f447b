"""Jobs over a file, resumable row by row: instructions for a file of responses, or scores for a file of pairs."""

import itertools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from config import SampleInstructConfig
from formats.checkpoint import Checkpoint
from formats.input_files import fingerprint
from formats.pairs import pair_fields, response_fields
from formats.tolerant_rows import Row, read_rows_or_errors
from sampling.engine import Engine
from sampling.generation import ResponsePrompter
from sampling.output_file import OutputFile
from sampling.pair_scores import score_pairs
from sampling.response_files import generate_instructions
from sampling.scoring import Scorer
from system.errors import BAD_FLAGS, UserError
from system.signals import Stopped
from tokens.prompt_format import PromptFormat


def run_file_job(
    config: SampleInstructConfig, checkpoint: Checkpoint, engine: Engine, prompter: ResponsePrompter, prompt_format: PromptFormat
) -> None:
    """Write the output file for --input or --score, resuming an earlier run, and fail at the end if rows could not be used."""
    source = config.input or config.score
    if config.score.lower().endswith(".txt"):
        raise UserError(f"--score {config.score}: a .txt file has no pairs. Use .jsonl, .json or .parquet", BAD_FLAGS)
    settings: Row = {
        "model": f"step {checkpoint.step}, loss {checkpoint.val_loss}",
        "matrices": f"{engine.model.output_matrix.dtype}",
        "source": fingerprint(source) if Path(source).is_file() else source,
        "work": "instructions" if config.input else "scores",
    }
    if config.input:
        names = ("num_samples", "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed")
        settings |= {name: getattr(config, name) for name in names}
    output = OutputFile(Path(config.output), settings)

    def all_fields_of_pairs(names: list[str]) -> list[str]:
        pair_fields(names, source)  # refuses a file without pairs
        return names

    def rows(done: int) -> Iterator[Row]:
        if done:
            print(f"resuming {output.unfinished}: {done:,} rows are done")
        fields = response_fields if config.input else all_fields_of_pairs
        remaining = itertools.islice(read_rows_or_errors(source, fields), done, None)
        results = (
            generate_instructions(config, engine, prompter, remaining, done)
            if config.input
            else score_pairs(Scorer(engine.model, engine.max_sequences), prompt_format, remaining, done)
        )
        total = sum(1 for _ in read_rows_or_errors(source, fields)) if sys.stderr.isatty() else None
        return iter(tqdm(results, initial=done, total=total, unit=" rows", disable=None, dynamic_ncols=True))

    try:
        output.write(rows)
    except KeyboardInterrupt:
        kept = f"{output.done:,} rows are kept in {output.unfinished}. Run the same command again to resume"
        raise Stopped(f"stopped; {kept}", signal.SIGINT) from None
    if warning := engine.pop_warning():
        print(warning)
    print(f"{config.output}: {output.done:,} rows" + (f", {output.errors:,} of them with an error" if output.errors else ""))
    if output.errors:
        raise UserError(f"{output.errors:,} of {output.done:,} rows could not be used; their field `error` says why")
