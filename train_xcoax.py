"""Train BackGPT on the token shards of preprocess_xcoax.py.

    python train_xcoax.py
    python train_xcoax.py tinystories --max-steps 2000
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
from system.command_line import read_flags
from training.dry_run import describe_run, with_vocabulary
from training.loss_curve import draw_loss_curve
from training.pretraining import describe_data, open_training_data, pretraining_task
from training.run import run_training


def main() -> None:
    config = read_flags(TRAIN_PRESETS, __doc__)
    if config.plot:
        print(f"drew {draw_loss_curve(Path(config.out_dir))}")
        return
    if config.dry_run:
        print(describe_run(with_vocabulary(config)))
        return
    dataset, tokenizer = open_training_data(config)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=dataset.vocab_size))
    task = pretraining_task(config, dataset, tokenizer)
    if config.hellaswag_every:
        task = dataclasses.replace(task, figures=hellaswag_while_training(config, tokenizer, dataset.order))
    run_training(config, task, lambda: GPT(config.model), "--max-steps", describe_data(config, dataset))


if __name__ == "__main__":
    run_script(main)
