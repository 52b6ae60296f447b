"""Every stage in a toy world, in minutes on two CPU cores: BackGPT writes towards endings, BackChat finds instructions.

    python demo_xcoax.py

The stages are the real scripts; only the text is small and made up (preprocessing/toy_world.py). Run it again to resume.
"""

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

from system.startup import run_script

import torch

from formats.checkpoint import BEST, load_checkpoint
from formats.pairs import pair_from_row
from formats.rows import read_json
from preprocessing.toy_world import PUBLISHED, write_world
from presets import FINETUNE_PRESETS, PREPROCESS_PRESETS, TRAIN_PRESETS
from sampling.engine import Engine
from sampling.generation import EndingPrompter, ResponsePrompter, generate_texts
from sampling.sampler import SamplingParams
from system.errors import UserError
from system.escapes import escape_controls, tell
from system.signals import StopSignals
from tokens.prompt_format import PromptFormat

STORY_COUNT = 20_000
ENDINGS = (
    "Both were happy. The end.",
    "Then she went back to bed. The end.",
    "On the first page it was far from home. The end.",
)
SHOWN_PAIRS = 8
INSTRUCTION_TOKENS = 48  # more than any instruction of this world needs
NOTICE = "This is a toy world: stories from templates, so that a tiny model can learn it in minutes."


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        list(map(escape_controls, sys.argv[1:]))
    )
    started = time.monotonic()
    world = Path(PREPROCESS_PRESETS["demo"].input[0]).parent
    tell(f"{NOTICE}\n\n[1/7] making {STORY_COUNT:,} stories in {world}")
    if not (world / "pairs_held_out.jsonl").is_file():  # written last
        write_world(world, STORY_COUNT)
    run_stage("[2/7] reversing words, encoding text as tokens", "preprocess_xcoax.py", "demo")
    run_stage("[3/7] training the model to write the previous word", "train_xcoax.py", "demo")
    tell("\n[4/7] you give the ending, it writes what led there")
    write_towards(Path(TRAIN_PRESETS["demo"].out_dir) / BEST)
    run_stage("[5/7] preprocessing pairs of instruction and response", "preprocess_instruct.py", "demo")
    run_stage("      tuning the model to write the instruction that a response answers", "finetune_xcoax.py", "demo")
    tell("\n[6/7] you give the response, it writes the instruction")
    write_instructions(Path(FINETUNE_PRESETS["demo"].out_dir) / BEST, world / "pairs_held_out.jsonl")
    run_stage("[7/7] its report card", "evaluate_xcoax.py", "demo")
    tell(f"\nDone in {time.monotonic() - started:.0f} s. {NOTICE}")
    if sys.stdin.isatty() and sys.stdout.isatty():
        talk()


def run_stage(title: str, *command: str) -> None:
    """Run one of the real scripts and show what it prints. On a signal, wait for it to save."""
    tell(f"\n{title}\n$ python {' '.join(command)}")
    with StopSignals("waiting for the stage to save") as signals:
        process = subprocess.Popen([sys.executable, str(Path(__file__).with_name(command[0])), *command[1:]])
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            if signals.received == signal.SIGTERM:  # Ctrl-C reaches the stage anyway
                process.terminate()
    if process.returncode:
        raise UserError(f"{command[0]} has stopped; see its message above. Run the demo again to resume", abs(process.returncode))


def talk() -> None:
    """Let the person who watched talk to the model."""
    tell("\nNow you: any sentence of this world will do, or another.\n$ python sample_xcoax_instruct.py demo")
    signal.signal(signal.SIGINT, lambda number, frame: None)  # Ctrl-C is for the prompt; unlike SIG_IGN, a handler is not inherited
    subprocess.run([sys.executable, str(Path(__file__).with_name("sample_xcoax_instruct.py")), "demo"], check=False)


def write_towards(path: Path) -> None:
    """Show stories that the model writes towards given endings."""
    checkpoint = load_checkpoint(path)
    model = checkpoint.make_model(torch.device("cpu"))
    prompter = EndingPrompter(checkpoint.tokenizer, checkpoint.order, model.config.block_size)
    params = SamplingParams(model.config.block_size, temperature=0.7)
    for ending, (text, _) in zip(ENDINGS, generate_texts(Engine(model), prompter, ENDINGS, params), strict=True):
        tell(f"\n  ending: {ending}\n" + "\n".join(f"    | {line}" for line in text.split("\n")))


def write_instructions(path: Path, held_out: Path) -> None:
    """Show the instructions that the tuned model finds for responses it has not seen, and how often they are exactly right."""
    checkpoint = load_checkpoint(path, "tuning")
    model = checkpoint.make_model(torch.device("cpu"))
    prompter = ResponsePrompter(PromptFormat(checkpoint.tokenizer, checkpoint.order), model.config.block_size)
    pairs = [*map(pair_from_row, (example._asdict() for example in PUBLISHED)), *map(pair_from_row, read_json(str(held_out)))]
    generated = generate_texts(
        Engine(model, 32), prompter, (pair.response for pair in pairs), SamplingParams(INSTRUCTION_TOKENS, temperature=0)
    )
    written = [text for text, _ in generated]
    tell("\n  the two published examples, which are in its training data")
    for pair, text in zip(pairs[: len(PUBLISHED)], written, strict=False):
        show(pair.response, text, pair.instruction)
    pairs, written = pairs[len(PUBLISHED) :], written[len(PUBLISHED) :]
    tell("\n  pairs that are in no training data")
    for pair, text in zip(pairs[:SHOWN_PAIRS], written, strict=False):
        show(pair.response, text, pair.instruction)
    right = sum(text == pair.instruction for pair, text in zip(pairs, written, strict=True))
    tell(f"\n  {right} of {len(pairs)} held-out instructions come out exactly, word for word: {right / len(pairs):.1%}")


def show(response: str, written: str, true: str) -> None:
    """One response with the generated instruction and, if it differs, the true one."""
    text = f"    response: {response}\n    it asks:  {written}" + ("" if written == true else f"\n    true was: {true}")
    tell(text + "\n")


if __name__ == "__main__":
    run_script(main)
