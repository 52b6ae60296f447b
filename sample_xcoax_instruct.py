"""Talk to BackChat: you give a response, it writes the instruction that could have led to it.

    python sample_xcoax_instruct.py
    python sample_xcoax_instruct.py --response "The cat is sleeping." --num-samples 5
    python sample_xcoax_instruct.py --input responses.jsonl --output instructions.jsonl
    python sample_xcoax_instruct.py --score pairs.jsonl --output scores.jsonl

A file is worked through in batches; stop it whenever you like, the same command goes on where it stopped.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from checkpoint import Checkpoint
from config import SampleInstructConfig
from dialogue import ROWS, Dialogue, load_engine
from engine import Engine, Request
from errors import UserError, run
from files import fingerprint
from flags import read_flags
from layout import Layout
from pairs import INPUTS, INSTRUCTIONS, MESSAGES, RESPONSE_FIELDS, Pair, clean, fields_of_pairs, pair_of, response_of
from presets import SAMPLE_INSTRUCT_PRESETS
from repl import sampling_of
from results import Results, Row, read_rows
from scoring import Scorer
from screen import Screen
from text import arrange
from writing import Responses, Written

GREETING = "Type a response and press Enter: it writes the instruction. `help` shows the settings, Ctrl-D leaves."
SCORED_TOGETHER = 256  # pairs


def main() -> None:
    config: SampleInstructConfig = read_flags(SAMPLE_INSTRUCT_PRESETS, __doc__)
    rows = config.batch_size if config.input else ROWS
    checkpoint, engine = load_engine(config, "tuning", rows)
    if checkpoint.stage != "tuning":
        raise UserError(
            f"{checkpoint.path} was pretrained and not tuned: it does not know instructions. Tune it with: "
            f"python finetune_xcoax.py --model-path {checkpoint.path}; or talk to it with sample_xcoax.py"
        )
    layout = Layout(checkpoint.tokenizer, checkpoint.order)
    form = Responses(layout, checkpoint.model_config.block_size)
    if config.output:
        work_through(config, checkpoint, engine, form, layout)
        return
    dialogue = Dialogue(Screen(), engine, form, best_first=True, at_the_beginning=checkpoint.order == "backward")
    dialogue.run(config, config.response, "response", GREETING)


def work_through(config: SampleInstructConfig, checkpoint: Checkpoint, engine: Engine, form: Responses, layout: Layout) -> None:
    """A file of responses to instructions, or a file of pairs to scores."""
    source = config.input or config.score
    settings: Row = {
        "model": f"step {checkpoint.step}, loss {checkpoint.val_loss}",
        "matrices": f"{engine.model.output_matrix.dtype}",
        "source": fingerprint(Path(source)) if Path(source).is_file() else source,
        "work": "instructions" if config.input else "scores",
    }
    if config.input:
        names = ("num_samples", "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed")
        settings |= {name: getattr(config, name) for name in names}
    results = Results(Path(config.output), settings)

    def rows(done: int) -> Iterator[Row]:
        if done:
            print(f"going on with {results.part}: {done:,} rows are done")
        wanted = fields_with_response if config.input else lambda fields: fields_of_pairs(fields, source) and fields
        read = itertools.islice(read_rows(source, wanted), done, None)
        made = (
            write_instructions(config, engine, form, read, done)
            if config.input
            else score_pairs(Scorer(engine.model, engine.rows), layout, read)
        )
        total = sum(1 for _ in read_rows(source, wanted)) if sys.stderr.isatty() else None
        return iter(tqdm(made, initial=done, total=total, unit=" rows", disable=None))

    results.write(rows)
    if engine.notice:
        print(engine.notice)
    print(f"{config.output}: {results.done:,} rows" + (f", {results.errors:,} of them with an error" if results.errors else ""))
    if results.errors:
        raise UserError(f"{results.errors:,} of {results.done:,} rows could not be used; each says why in its field `error`")


def fields_with_response(fields: list[str]) -> list[str]:
    """All fields of a table of responses."""
    if not set(fields) & {*RESPONSE_FIELDS, MESSAGES}:
        raise UserError(f"--input has the fields {', '.join(fields)}; a response is {' or '.join(RESPONSE_FIELDS)}, or in {MESSAGES}")
    return fields


def write_instructions(
    config: SampleInstructConfig, engine: Engine, form: Responses, rows: Iterator[Row | str], done: int
) -> Iterator[Row]:
    """For each row its candidates, the likeliest as its instruction; in order, whatever is finished first."""
    waiting: dict[int, Row] = {}  # read, but not yet written
    requested: list[int] = []  # the place of each request among the rows
    texts: dict[int, list[Written]] = {}
    first = 0  # the row that is written next

    def requests() -> Iterator[Request]:
        for place, read in enumerate(rows):
            kept, response = carried(read), None if isinstance(read, str) else response_of(read)
            try:
                if isinstance(read, str):
                    raise UserError(read)
                if not isinstance(response, str):
                    raise UserError(f"no text in {' or '.join(RESPONSE_FIELDS)}")
                request, notice = form.request(response, config.num_samples, config.max_new_tokens)
            except (UserError, UnicodeEncodeError) as error:
                waiting[place] = {**kept, "error": str(error)}
                continue
            waiting[place] = {**kept, "response": clean(response), "cut": bool(notice)}
            texts[place] = [Written() for _ in range(config.num_samples)]
            requested.append(place)
            yield request._replace(key=done + place)  # resumed or not, a row gets the same

    for event in engine.run(requests(), sampling_of(config), form.stop):
        place = requested[event.request]
        texts[place][event.sample].add(event)
        while first in waiting and all(text.ending for text in texts.get(first, [])):
            yield _result(waiting.pop(first), texts.pop(first, []), form)
            first += 1
    while first in waiting:  # rows with errors after the last one that was written
        yield waiting.pop(first)
        first += 1


def carried(read: Row | str) -> Row:
    """What of a row goes into its result: all that does not belong to the pair it held, or to an earlier result."""
    own = (*INSTRUCTIONS, *INPUTS, *RESPONSE_FIELDS, MESSAGES, "error", "candidates")
    return {} if isinstance(read, str) else {name: value for name, value in read.items() if name not in own}


def _result(row: Row, texts: list[Written], form: Responses) -> Row:
    if "error" in row:
        return row
    found: list[dict[str, Any]] = [
        {
            "instruction": form.text("", text.ids),
            "logprob_per_token": round(text.logprob_per_token, 5),
            "tokens": text.tokens,
            "complete": text.ending == "stop",
        }
        for text in sorted(texts, key=lambda text: -text.logprob_per_token)
    ]
    return {**row, **found[0], **({"candidates": found} if len(found) > 1 else {})}


def score_pairs(scorer: Scorer, layout: Layout, rows: Iterator[Row | str]) -> Iterator[Row]:
    """For each pair the log-probability of its instruction given its response, and how much of it the response explains."""
    block_size = scorer.model.config.block_size
    while together := list(itertools.islice(rows, SCORED_TOGETHER)):
        results: list[Row] = []
        sequences: list[tuple[list[int], list[int]]] = []
        for read in together:
            row: Row = {} if isinstance(read, str) else {name: value for name, value in read.items() if name != "error"}
            pair = Pair("", "", read) if isinstance(read, str) else pair_of(read)
            instruction = [*layout.tokenizer.encode(arrange(pair.instruction, layout.order)), *layout.end]
            room = block_size - layout.frame + len(layout.end) - len(instruction)
            if pair.trouble or room < 1:
                trouble = pair.trouble or f"the instruction has more tokens than the context of {block_size} holds"
                results.append({**row, "error": trouble})
                continue
            response, kept = layout.fit(pair.response, room)
            results.append({**row, "cut": kept != pair.response})
            sequences += [(layout.prompt(response), instruction), (layout.prompt([]), instruction)]
        scores = scorer.score(sequences)
        for result in results:
            if "error" not in result:
                given, alone = next(scores), next(scores)
                result["logprob"] = round(float(given.sum()), 4)
                result["logprob_per_token"] = round(float(given.mean()), 5)
                result["logprob_gain"] = round(float(given.sum() - alone.sum()), 4)
                result["tokens"] = len(given)
            yield result


if __name__ == "__main__":
    run(main)
