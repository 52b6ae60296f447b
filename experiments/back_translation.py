"""Do filters by BackChat's own scores make its pairs better to learn from? Forward models are tuned on them and compared.

    python -m experiments.back_translation --model-path out/instruct/best_checkpoint.pt --forward-path out/xcoax-forward/best_checkpoint.pt

BackChat writes an instruction for each of --responses held-out responses. A filter keeps the half with the highest log-probability per
token, another the half that gains most by its response; as many are drawn at random. From each half the forward model learns to answer,
once the written instructions and once the true ones, and for the scale once those of other responses. Other held-out pairs judge it: what
does a true answer cost, given its instruction?

A run that was stopped resumes, and what is finished is only read.
"""

import argparse
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from system.startup import run_script

import numpy as np

from config import EvaluateConfig
from evaluation.bootstrap import Values, ratio_estimate
from evaluation.held_out import NotMeasured, make_example, read_held_out_pairs
from evaluation.logprobs import instruction_logprobs
from experiments.commands import call_script
from formats.checkpoint import BEST, Checkpoint
from formats.named_model import load_named_model
from formats.pairs import GENERATED, Pair
from formats.rows import Row, read_json
from presets import FAST
from sampling.scoring import Scorer
from system.device import choose_device
from system.errors import BAD_FLAGS, UserError
from system.escapes import tell
from system.files import atomic_write, lock_folder, write_json, write_text
from system.recorded_settings import read_record
from system.settings import changed_settings
from tokens.prompt_format import PromptFormat

TRUE = "true_instruction"
MISMATCHED = "mismatched"  # in place of a field of the row: the true instruction of another one
FILTERS = {"likely": "logprob_per_token", "gain": "logprob_gain"}  # the score whose upper half is kept
SETS = {  # which half of the responses, and whose instructions
    f"{half}, {whose}": (half, instructions)
    for whose, instructions in (("written", GENERATED), ("true", TRUE))
    for half in ("drawn", *FILTERS)
} | {"drawn, mismatched": ("drawn", MISMATCHED)}
FIRST = next(iter(SETS))  # the others are compared with it
RECIPE = FAST | {"lr": 2e-3, "adamw_lr": 4e-3, "batch_size": 8, "warmup_steps": 10}


class Cost(NamedTuple):
    """What each true answer costs in bits, and its size in bytes."""

    bits: Values
    sizes: Values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="the tuned model that writes the instructions")
    parser.add_argument("--forward-path", required=True, help="the pretrained model that learns to answer")
    parser.add_argument("--out-dir", default="out/back-translation", help="folder for the pairs, the runs and the table")
    parser.add_argument("--responses", type=int, default=2000, help="held-out responses that get an instruction")
    parser.add_argument("--judges", type=int, default=1000, help="other held-out pairs, which judge the forward models")
    parser.add_argument("--epochs", type=float, default=3, help="passes over the pairs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="a forward model of each set for each")
    arguments = parser.parse_args()
    for name in ("responses", "judges"):
        if getattr(arguments, name) < 2:
            raise UserError(f"--{name} {getattr(arguments, name)}: 2 or more", BAD_FLAGS)
    folder = Path(arguments.out_dir)
    with lock_folder(folder, "--out-dir"):
        writer, forward = load_named_model(arguments.model_path, "tuning"), load_named_model(arguments.forward_path, "pretraining")
        pairs = held_out_pairs(arguments, writer)
        keep_settings(folder, arguments, writer, forward)
        write_instructions(folder, pairs[: arguments.responses], arguments)
        write_sets(folder)
        judges = pairs[arguments.responses :]
        costs = {name: [cost_of(judges, train(folder, name, seed, arguments, forward)) for seed in arguments.seeds] for name in SETS}
        table = as_table(costs, arguments.responses // 2)
        write_text(folder / "back_translation.md", table)
        tell(f"\n{table}\nwrote {folder / 'back_translation.md'}")


def keep_settings(folder: Path, arguments: argparse.Namespace, writer: Checkpoint, forward: Checkpoint) -> None:
    """Record what the files in the folder follow from; refuse a folder whose files follow from something else."""
    now = {"--model-path": writer.fingerprint, "--forward-path": forward.fingerprint}
    now |= {f"--{name}": getattr(arguments, name) for name in ("responses", "judges", "epochs")}
    path = folder / "settings.json"
    way_out = "Use another --out-dir, or delete this one"
    if path.is_file():
        try:
            changes = changed_settings(read_record(path), now)
        except UserError as error:  # its way out is that of --like
            raise UserError(f"{path} is damaged. {way_out}", BAD_FLAGS) from error
        if changes:
            raise UserError(f"{folder} has an experiment in which {'; '.join(changes)}. {way_out}", BAD_FLAGS)
    write_json(path, now)


def held_out_pairs(arguments: argparse.Namespace, writer: Checkpoint) -> list[Pair]:
    """Pairs that the writer was not tuned on, in a random order: first those that it writes for, then those that judge."""
    wanted = arguments.responses + arguments.judges
    try:
        held_out = read_held_out_pairs(EvaluateConfig(max_pairs=wanted), writer)
    except NotMeasured as error:
        raise UserError(f"--model-path {arguments.model_path}: {error}", BAD_FLAGS) from error
    for warning in held_out.warnings:
        tell(f"warning: {warning}")
    pairs = [one.pair for one in held_out.evaluated]
    if len(pairs) < wanted:
        raise UserError(
            f"--responses {arguments.responses:,} and --judges {arguments.judges:,}: there are {len(pairs):,} held-out pairs. Ask for "
            "fewer, or tune on data of which more is held out (--val-share)",
            BAD_FLAGS,
        )
    random.Random(0).shuffle(pairs)
    return pairs


def write_instructions(folder: Path, pairs: list[Pair], arguments: argparse.Namespace) -> None:
    """Let BackChat write an instruction for each response and score the two as a pair."""
    if not (folder / "scored.jsonl").is_file():
        _write_rows(folder / "responses.jsonl", ({"response": pair.response, TRUE: pair.instruction} for pair in pairs))
        files = ("--input", folder / "responses.jsonl", "--output", folder / "scored.jsonl", "--with-scores")
        call_script("sample_xcoax_instruct.py", "--model-path", arguments.model_path, *files, "--temperature", 0, "--max-new-tokens", 100)


def write_sets(folder: Path) -> None:
    """Write the pairs that the forward models learn from: to them the answer is what they write, so the two texts change places."""
    rows = list(read_json(str(folder / "scored.jsonl")))
    half = len(rows) // 2
    halves = {"drawn": random.Random(1).sample(rows, half)}
    halves |= {name: sorted(rows, key=lambda row: -row[score])[:half] for name, score in FILTERS.items()}
    for name, (responses, instructions) in SETS.items():
        chosen = halves[responses]
        of_next = [row[TRUE] for row in (*chosen[1:], chosen[0])]
        given = of_next if instructions == MISMATCHED else [row[instructions] for row in chosen]
        swapped = ({"instruction": row["response"], "response": text} for row, text in zip(chosen, given, strict=True))
        _write_rows(folder / f"{_slug(name)}.jsonl", swapped)


def train(folder: Path, name: str, seed: int, arguments: argparse.Namespace, forward: Checkpoint) -> Path:
    """Tune a forward model on one of the sets, or resume, or find it finished."""
    data, out = folder / f"{_slug(name)}-data", folder / f"{_slug(name)}-{seed}"
    shape = ("--order", forward.order, "--block-size", forward.model_config.block_size, "--val-share", 0.05)
    source = ("--input", folder / f"{_slug(name)}.jsonl", "--tokenizer", arguments.forward_path)
    call_script("preprocess_instruct.py", "--data-dir", data, *source, *shape)
    recipe = [part for key, value in RECIPE.items() for part in (f"--{key.replace('_', '-')}", value)]
    where = ("--model-path", arguments.forward_path, "--data-dir", data, "--out-dir", out)
    call_script("finetune_xcoax.py", *where, "--epochs", arguments.epochs, "--seed", seed, *recipe, "--no-compile")
    return out / BEST


def cost_of(judges: list[Pair], path: Path) -> Cost:
    """What the true answers cost a forward model, given their true instructions. Pairs too long for its context are left out."""
    checkpoint = load_named_model(str(path), "tuning")
    prompt_format = PromptFormat(checkpoint.tokenizer, checkpoint.order)
    swapped = (Pair(pair.response, pair.instruction) for pair in judges)
    made = (make_example(pair, prompt_format, checkpoint.model_config.block_size)[0] for pair in swapped)
    examples = [example for example in made if example]
    logprobs = instruction_logprobs(Scorer(checkpoint.make_model(choose_device("auto")), 16), examples)
    sizes = [checkpoint.tokenizer.bytes_per_id[example.ids[example.prompt_length :]].sum() for example in examples]
    return Cost(-np.fromiter(logprobs, float) / math.log(2), np.array(sizes, float))


def as_table(costs: dict[str, list[Cost]], count: int) -> str:
    """Bits per byte of the true answers after learning from each set; how far it is from the first, and from the true instructions."""
    lines = [
        f"| tuned on {count:,} pairs | bits per byte of the true answers, by seed | minus {FIRST} | minus the same responses, true |",
        "|---|--:|--:|--:|",
    ]
    means = {name: np.mean([cost.bits for cost in each], axis=0) for name, each in costs.items()}
    sizes = costs[FIRST][0].sizes
    for name, each in costs.items():
        by_seed = " ".join(f"{cost.bits.sum() / sizes.sum():.4f}" for cost in each)
        others = FIRST, f"{SETS[name][0]}, true"
        differences = ["" if other == name else str(ratio_estimate(means[name] - means[other], sizes, 0, "+.4f")) for other in others]
        lines.append(f"| {name} | {by_seed} | {' | '.join(differences)} |")
    judged = len(sizes)
    return "\n".join([*lines, "", f"{judged:,} answers; the intervals are over answers, for the mean of the seeds.", ""])


def _slug(name: str) -> str:
    return name.replace(", ", "-")


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    with atomic_write(path) as file:
        file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)


if __name__ == "__main__":
    run_script(main)
