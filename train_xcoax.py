"""Train BackGPT on the token shards of preprocess_xcoax.py.

    python train_xcoax.py
    python train_xcoax.py tinystories --max-steps 2000
    python train_xcoax.py --init-from out/xcoax/best_checkpoint.pt --data-dir data/mine --out-dir out/mine
    python train_xcoax.py --like out/xcoax --out-dir out/xcoax-seed-1 --seed 1
    python train_xcoax.py --dry-run
    python train_xcoax.py --plot

You can stop it at any time; run the same command again to resume from the last checkpoint.
"""

import dataclasses
from pathlib import Path

from system.startup import run_script

from evaluation.hellaswag import hellaswag_while_training
from model import GPT
from presets import TRAIN_PRESETS
from system.command_line import given_flags, read_flags
from system.escapes import tell
from training.dry_run import describe_run, with_vocabulary
from training.loss_curve import draw_loss_curve
from training.pretraining import describe_data, open_training_data, pretraining_task, with_sample_prompt
from training.run import run_training
from training.run_record import like_run
from training.starting_point import FREE, load_start, make_started_model, require_same_tokens
from training.task import RANDOM


def main() -> None:
    config = read_flags(TRAIN_PRESETS, __doc__, imitate=like_run)
    if config.plot:
        tell(f"drew {draw_loss_curve(Path(config.out_dir))}")
        return
    start = None
    if config.init_from:
        config, start = load_start(config, given_flags() | (FREE if config.like else set()))
    if config.dry_run:
        tell(describe_run(config if start else with_vocabulary(config)))
        return
    dataset, tokenizer = open_training_data(config)
    if start:
        require_same_tokens(config, dataset, start.checkpoint)
    config = with_sample_prompt(config, dataset.order, given_flags())
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=dataset.vocab_size))
    task = pretraining_task(config, dataset, tokenizer, start.fingerprint if start else RANDOM)
    if config.hellaswag_every:
        task = dataclasses.replace(task, figures=hellaswag_while_training(config, tokenizer, dataset.order))
    run_training(
        config,
        task,
        lambda: make_started_model(config, start.checkpoint) if start else GPT(config.model),
        "--max-steps",
        describe_data(config, dataset),
        *([f"starts from {start.checkpoint.path}, {start.fingerprint}"] if start else []),
    )


if __name__ == "__main__":
    run_script(main)
