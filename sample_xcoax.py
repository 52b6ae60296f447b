"""Talk to BackGPT: you give an ending, it writes what led there.

    python sample_xcoax.py
    python sample_xcoax.py --prompt "The end." --num-samples 3 --max-new-tokens 200 --temperature 0.7
    python sample_xcoax.py tinystories < endings.txt
    python sample_xcoax.py --input endings.jsonl --output texts.jsonl

A model trained on forward text (--order forward) continues from a beginning instead.

You can stop the work on a file at any time; run the same command again to resume.
"""

import sys

from system.startup import run_script

from config import SampleConfig
from presets import SAMPLE_PRESETS
from system.command_line import read_flags
from system.escapes import tell
from system.keyboard import hidden_typing
from system.terminal import Screen, tell_at_once

GREETING = "Type an ending and press Enter: it writes what led there. `help` shows the settings, Ctrl-D leaves."


def main() -> None:
    config = read_flags(SAMPLE_PRESETS, __doc__)
    with hidden_typing():
        sample(config)


def sample(config: SampleConfig) -> None:
    """Generate for a text, the rows of a file, the lines of a pipe, or what is typed."""
    if config.format == "text":
        tell_at_once(f"reading {config.model_path}")
    from sampling.ending_files import texts_job  # these import torch, which takes seconds
    from sampling.file_jobs import run_file_job
    from sampling.generation import EndingPrompter
    from sampling.loading import MAX_SEQUENCES, load_engine
    from sampling.repl import talk
    from sampling.terminal_sampler import TerminalSampler

    checkpoint, engine = load_engine(config, "pretraining", config.batch_size if config.output else MAX_SEQUENCES)
    if checkpoint.stage == "tuning":
        tell(f"{checkpoint.path} was tuned on instructions; use sample_xcoax_instruct.py to prompt it as it was trained", sys.stderr)
    prompter = EndingPrompter(checkpoint.tokenizer, checkpoint.order, checkpoint.model_config.block_size)
    if config.output:
        run_file_job(texts_job(config, engine, prompter), checkpoint, engine.model, config.output)
        return
    screen = Screen(plain=config.format == "jsonl")
    sampler = TerminalSampler(screen, engine, prompter, best_first=False, grows_left=checkpoint.order == "backward")
    talk(sampler, config, checkpoint, config.prompt, GREETING)


if __name__ == "__main__":
    run_script(main)
