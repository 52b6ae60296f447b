"""Walk the whole road in a toy world, in minutes on two CPU cores: make a corpus, preprocess, train, write towards endings.

    python demo_xcoax.py

The stages are the real scripts; only the text is small and made up by world.py. Run it again and it goes on where it stopped.
"""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from checkpoint import BEST, load_checkpoint
from config import PREPROCESS_PRESETS, TRAIN_PRESETS
from engine import write
from errors import StopSignals, UserError, run
from world import write_world

STORY_COUNT = 20_000
ENDINGS = (
    "Both were happy. The end.",
    "Then she went back to bed. The end.",
    "On the first page it was far from home. The end.",
)
NOTICE = "This is a toy world: stories from templates, so that a tiny model can learn it in minutes."


def main() -> None:
    started = time.monotonic()
    world = Path(PREPROCESS_PRESETS["demo"].input[0]).parent
    print(f"{NOTICE}\n\n[1/4] making {STORY_COUNT:,} stories in {world}")
    if not (world / "pairs_held_out.jsonl").is_file():  # written last
        write_world(world, STORY_COUNT)
    run_stage("[2/4] words turned round, text turned into tokens", "preprocess_xcoax.py", "demo")
    run_stage("[3/4] training the model to write the previous word", "train_xcoax.py", "demo")
    print("\n[4/4] you give the ending, it writes what led there")
    write_towards(Path(TRAIN_PRESETS["demo"].out_dir) / BEST)
    print(f"\nDone in {time.monotonic() - started:.0f} s. {NOTICE}")


def run_stage(title: str, *command: str) -> None:
    """Run one of the real scripts and show what it prints; a signal is left to it, so that it can save."""
    print(f"\n{title}\n$ python {' '.join(command)}")
    with StopSignals("waiting for the stage to save") as signals:
        process = subprocess.Popen([sys.executable, str(Path(__file__).with_name(command[0])), *command[1:]])
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            if signals.received == signal.SIGTERM:  # Ctrl-C reaches the stage by itself
                process.terminate()
    if process.returncode:
        raise UserError(f"{command[0]} has stopped; the reason stands above. Run the demo again to go on", abs(process.returncode))


def write_towards(path: Path) -> None:
    """Show stories that the model wrote towards given endings."""
    checkpoint = load_checkpoint(path)
    model = checkpoint.make_model(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for ending in ENDINGS:
        text = write(model, checkpoint.tokenizer, checkpoint.order, ending, model.config.block_size, generator, temperature=0.7)
        print("\n  ending: " + ending.replace("\n", " / ") + "\n" + "\n".join(f"    | {line}" for line in text.splitlines()))


if __name__ == "__main__":
    run(main)
