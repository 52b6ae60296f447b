"""Evaluate a model: writes its report card.

    python evaluate_xcoax.py
    python evaluate_xcoax.py --model-path out/xcoax/best_checkpoint.pt --against out/xcoax-forward/best_checkpoint.pt
    python evaluate_xcoax.py --model-path out/a0 out/a1 --against out/b0 out/b1 --data-dir data/prose data/code
    python evaluate_xcoax.py --pairs my_held_out_pairs.jsonl --candidates 10 100 --out-dir out/card

Prints each table as soon as it is measured, and writes report.json, .md, .csv, .tex and the pictures beside the checkpoint, or
with --against in a folder there that names the other model. A section that cannot be measured, such as instructions for a
model that is not tuned, is left out, and the report says why.
"""

import contextlib
import time
from pathlib import Path

from system.startup import run_script

from evaluation.evaluated_model import load_models
from evaluation.provenance import describe_model
from evaluation.report_card import default_folder, describe_run, fill
from evaluation.report_files import Report
from formats.hub_models import is_on_hub
from presets import EVALUATE_PRESETS
from system.command_line import read_flags
from system.device import explain_out_of_memory
from system.errors import require
from system.escapes import tell
from system.files import lock_results
from system.ranks import join_ranks


def main() -> None:
    started = time.monotonic()
    config = read_flags(EVALUATE_PRESETS, __doc__)
    require(bool(config.out_dir) or not is_on_hub(config.model_path[0]), "--out-dir: name the folder to write for a model from the hub")
    with join_ranks(config.device) as (ranks, device), explain_out_of_memory(f"Try a --batch-size below {config.batch_size}"):
        models = load_models(config, device, ranks)
        folder = Path(config.out_dir) if config.out_dir else default_folder(models)
        facts = describe_run(config, models, device)
        described = {model.name: describe_model(model) for model in models}
        report = Report("The report card of a model that writes backwards", folder, facts, models=described, is_kept=ranks.is_first)
        with lock_results(folder, "--out-dir") if ranks.is_first else contextlib.nullcontext():
            fill(report, config, models)
            files = report.finish()
    tell(f"\nwrote {', '.join(files)} to {folder}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run_script(main)
