"""Tune a pretrained model into BackChat: given a response, it learns to write the instruction that could have led to it.

    python finetune_xcoax.py --model-path out/xcoax/best_checkpoint.pt
    python finetune_xcoax.py --model-path out/mine/best_checkpoint.pt --data-dir data/my-pairs --out-dir out/my-pairs --epochs 5
    python finetune_xcoax.py --like out/instruct --out-dir out/instruct-seed-1 --seed 1
    python finetune_xcoax.py --plot

Architecture, tokenizer and word order are the checkpoint's. You can stop it at any time; run the same command again to
resume from the last checkpoint.
"""

from pathlib import Path

from system.startup import run_script

import torch

from formats.named_model import load_named_model
from model import GPT
from presets import FINETUNE_PRESETS
from system.command_line import read_flags
from system.escapes import tell
from training.loss_curve import draw_loss_curve
from training.run import run_training
from training.run_record import like_run
from training.tuning import Tuning, open_tuning_data


def main() -> None:
    config = read_flags(FINETUNE_PRESETS, __doc__, imitate=like_run)
    if config.plot:
        tell(f"drew {draw_loss_curve(Path(config.out_dir))}")
        return
    base = load_named_model(config.model_path)
    tuning = Tuning(config, base, open_tuning_data(config, base))

    def make_model() -> GPT:
        return tuning.base.make_model(torch.device("cpu")).float()  # a published checkpoint may be in bfloat16

    run_training(tuning.config, tuning.task(), make_model, "--epochs", tuning.describe_data())


if __name__ == "__main__":
    run_script(main)
