"""Train one small model by several recipes and compare the tokens and the seconds that each takes to a loss.

    python -m experiments.tokens_to_loss --data-dir data/xcoax
    python -m experiments.tokens_to_loss --data-dir data/xcoax --recipes published fast --seeds 0

Each recipe is flags of train_xcoax.py, which does the training; so a run that was stopped resumes, and a finished one is only
read. The first recipe named is the one that the others are compared with: every other gets --share of its tokens.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from system.startup import run_script

from experiments.commands import call_script
from experiments.recipes import RECIPES, flags_of
from formats.shards import open_dataset
from system.errors import UserError
from system.escapes import tell
from system.files import atomic_write, lock_folder
from training.metrics import read_metrics

EVALUATIONS = 20  # in a run
HEAD_SIZE = 64
SMALLEST = 4096  # tokens of a run: one step of the published recipe


@dataclass(frozen=True)
class Run:
    """What one training logged: validation loss over tokens and over seconds."""

    tokens: tuple[float, ...]
    seconds: tuple[float, ...]
    losses: tuple[float, ...]

    def first_at(self, loss: float, axis: Sequence[float]) -> float | None:
        """Where on an axis the run reaches a loss, on the straight line between two evaluations; None if it does not."""
        points = list(zip(axis, self.losses, strict=True))
        for (before, higher), (after, lower) in pairwise(points):
            if lower <= loss:
                return before + (after - before) * (higher - loss) / (higher - lower)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="finished data folder")
    parser.add_argument("--out-dir", default="out/experiments", help="folder for the runs, the table and the picture")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["published", "fast"], help="what to compare")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="a run of each recipe for each")
    parser.add_argument("--tokens", type=int, default=800 * 4096, help="training tokens of the first recipe")
    parser.add_argument("--share", type=float, default=0.4, help="share of these tokens that the other recipes get")
    parser.add_argument("--shape", default="4x256", help="layers x width; heads of 64 channels, context 256")
    arguments = parser.parse_args()
    check(arguments)
    open_dataset(Path(arguments.data_dir))  # refuses one that is not finished before anything takes time
    folder = Path(arguments.out_dir)
    with lock_folder(folder, "--out-dir"):
        runs = {
            name: [train(name, seed, arguments, arguments.tokens * (arguments.share if number else 1)) for seed in arguments.seeds]
            for number, name in enumerate(arguments.recipes)
        }
        table = as_table(runs)
        with atomic_write(folder / "tokens_to_loss.md") as file:
            file.write(table.encode())
        tell(f"\n{table}\nwrote {folder / 'tokens_to_loss.md'}, drew {draw(folder, runs)}")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be trained before anything takes time."""
    if not (found := re.fullmatch(r"[1-9]\d*x([1-9]\d*)", arguments.shape)) or int(found[1]) % HEAD_SIZE:
        raise UserError(f"--shape {arguments.shape}: layers x width, and the width a multiple of {HEAD_SIZE}, as in 4x256", exit_code=2)
    if not 0 < arguments.share <= 1:
        raise UserError(f"--share {arguments.share}: above 0, at most 1", exit_code=2)
    if arguments.tokens * arguments.share < SMALLEST:
        raise UserError(f"--tokens {arguments.tokens} with --share {arguments.share}: at least {SMALLEST:,} for each recipe", exit_code=2)


def train(recipe: str, seed: int, arguments: argparse.Namespace, tokens: float) -> Run:
    """Train by a recipe, or resume, or read what it logged before."""
    layers, _, width = arguments.shape.partition("x")
    folder = Path(arguments.out_dir) / f"{arguments.shape}-{recipe}-{tokens:.0f}-{seed}"
    shape = ("--n-layer", layers, "--n-embed", width, "--n-head", str(int(width) // HEAD_SIZE))
    where = ("--data-dir", arguments.data_dir, "--out-dir", str(folder), "--seed", str(seed))
    call_script("train_xcoax.py", "xcoax", *where, *shape, *flags_of(recipe, int(width), int(tokens), EVALUATIONS))
    rows: list[dict[str, Any]] = [row for row in read_metrics(folder) if "val_loss" in row]
    return Run(*(tuple(row[name] for row in rows) for name in ("tokens", "seconds", "val_loss")))


def as_table(runs: dict[str, list[Run]]) -> str:
    """Each recipe beside the first: its loss, and what it took to reach the first one's last loss, on the mean curves of the seeds."""
    means = {name: mean_of(each) for name, each in runs.items()}
    first = next(iter(means.values()))
    goal = first.losses[-1]
    lines = [
        f"| recipe | tokens | last loss, by seed | share of the tokens to {goal:.3f} | share of the seconds |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, each in runs.items():
        losses = " ".join(f"{run.losses[-1]:.3f}" for run in each)
        ours = means[name]
        tokens = _share(ours.first_at(goal, ours.tokens), first.tokens[-1])
        seconds = _share(ours.first_at(goal, ours.seconds), first.seconds[-1])
        lines.append(f"| {name} | {each[0].tokens[-1]:,.0f} | {losses} | {tokens} | {seconds} |")
    if min(map(len, runs.values())) < 2:
        return "\n".join([*lines, "", "One seed does not tell which recipes differ.", ""])
    spread = max(max(run.losses[-1] for run in each) - min(run.losses[-1] for run in each) for each in runs.values())
    rule = f"Largest difference between two seeds of one recipe: {spread:.3f}. Recipes that differ by less do not differ."
    return "\n".join([*lines, "", rule, ""])


def mean_of(runs: Sequence[Run]) -> Run:
    """The mean curve of runs with the same evaluations."""
    return Run(*(tuple(map(mean, zip(*(getattr(run, name) for run in runs), strict=True))) for name in ("tokens", "seconds", "losses")))


def _share(reached: float | None, whole: float) -> str:
    return "not reached" if reached is None else f"{reached / whole:.2f}"


def draw(folder: Path, runs: dict[str, list[Run]]) -> Path:
    """The curves of all runs, over tokens and over seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import; needs no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    lowest = min(run.losses[-1] for each in runs.values() for run in each)
    for axes, axis, unit in ((left, "tokens", 1e6), (right, "seconds", 1)):
        for number, (name, each) in enumerate(runs.items()):
            for seed, run in enumerate(each):
                places = [place / unit for place in getattr(run, axis)]
                axes.plot(places, run.losses, color=f"C{number}", label=None if seed else name, linewidth=1.3, alpha=0.8)
        axes.axhline(mean(run.losses[-1] for run in next(iter(runs.values()))), color="gray", linewidth=0.8, linestyle=":")
        axes.set_ylim(lowest - 0.1, lowest + 2)
        axes.grid(alpha=0.3)
    left.set_xlabel("training tokens (millions)")
    right.set_xlabel("seconds of training, without evaluations")
    left.set_ylabel("validation loss (nats per token)")
    left.legend()
    with atomic_write(folder / "tokens_to_loss.png") as file:
        figure.savefig(file, format="png")
    return folder / "tokens_to_loss.png"


if __name__ == "__main__":
    run_script(main)
