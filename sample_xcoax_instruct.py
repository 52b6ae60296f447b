"""Talk to BackChat: you give a response, it writes the instruction that could have led to it.

    python sample_xcoax_instruct.py
    python sample_xcoax_instruct.py --response "The cat is sleeping." --num-samples 5
    python sample_xcoax_instruct.py --input responses.jsonl --output instructions.jsonl
    python sample_xcoax_instruct.py --input responses.jsonl --output scored.jsonl --with-scores

You can stop the work on a file at any time; run the same command again to resume.
"""

from system.startup import run_script

from config import SampleInstructConfig
from presets import SAMPLE_INSTRUCT_PRESETS
from system.command_line import given_flags, read_flags
from system.device import explain_out_of_memory
from system.keyboard import hidden_typing
from system.terminal import Screen, tell_at_once

GREETING = "Type a response and press Enter: it writes the instruction. `help` shows the settings, Ctrl-D leaves."


def main() -> None:
    config = read_flags(SAMPLE_INSTRUCT_PRESETS, __doc__)
    with hidden_typing():
        sample(config)


def sample(config: SampleInstructConfig) -> None:
    """Generate for a text, the rows of a file, the lines of a pipe, or what is typed."""
    if config.format == "text":
        tell_at_once(f"reading {config.model_path}")
    from sampling.file_jobs import run_file_job  # these import torch, which takes seconds
    from sampling.generation import ResponsePrompter
    from sampling.loading import MAX_SEQUENCES, load_engine, require_tuned
    from sampling.prompt_settings import require_fitting
    from sampling.repl import talk
    from sampling.response_files import instructions_job
    from sampling.terminal_sampler import TerminalSampler
    from tokens.prompt_format import PromptFormat

    checkpoint, engine = load_engine(config, "tuning", config.batch_size if config.output else MAX_SEQUENCES)
    require_tuned(checkpoint)
    prompter = ResponsePrompter(PromptFormat(checkpoint.tokenizer, checkpoint.order), checkpoint.model_config.block_size)
    if "max_new_tokens" in given_flags():  # the default is for a large context
        require_fitting(config.max_new_tokens, prompter.most_tokens)
    if config.output:
        with explain_out_of_memory(f"Try a --batch-size below {config.batch_size}, or --device cpu"):
            run_file_job(instructions_job(config, engine, prompter), checkpoint, engine.model, config.output)
        return
    screen = Screen(plain=config.format == "jsonl")
    sampler = TerminalSampler(screen, engine, prompter, best_first=True, grows_left=checkpoint.order == "backward")
    talk(sampler, config, checkpoint, config.response, GREETING)


if __name__ == "__main__":
    run_script(main)
