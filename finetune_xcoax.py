"""Tune a pretrained model into BackChat: given a response, it learns to write the instruction that could have led to it.

    python finetune_xcoax.py --model-path out/xcoax/best_checkpoint.pt
    python finetune_xcoax.py --model-path out/mine/best_checkpoint.pt --data-dir data/my-pairs --out-dir out/my-pairs --epochs 5
    python finetune_xcoax.py --plot

Architecture, tokenizer and word order are the checkpoint's. Stop it whenever you like: the same command goes on from the
last checkpoint.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from checkpoint import Checkpoint, load_checkpoint
from config import FinetuneConfig
from disk import claim
from engine import Engine, Sampling
from errors import BAD_FLAGS, UserError, run
from flags import read_flags
from layout import Layout
from metrics import draw_loss
from model import GPT
from packing import Example, Examples, PackedRows, lay, mismatched, pack, strangers
from presets import FINETUNE_PRESETS
from session import train
from shards import SPLITS, Dataset, Rows, open_dataset, spread
from text import arrange
from training import Task
from writing import Responses, write

SHOWN_PAIRS = 3
SHOWN_CHARACTERS = 200  # of each text
SHOWN_TOKENS = 64  # that an instruction may take


class Tuning:
    """What there is to learn: the pairs of a data folder for the model of a checkpoint."""

    def __init__(self, config: FinetuneConfig, base: Checkpoint, dataset: Dataset) -> None:
        self.config = config
        self.base = base
        self.dataset = dataset
        self.block_size = base.model_config.block_size
        self.layout = Layout(base.tokenizer, base.order)
        train, val = (Examples(dataset, split, self.layout) for split in SPLITS)
        self.train_rows = PackedRows(train, self.block_size, self.layout.tokenizer.end_of_text, config.loss_on)
        self.pairs = len(train)
        self.padding = 1 - train.lengths.sum() / (len(self.train_rows) * self.block_size)
        self.held_out = [val[index] for index in spread(len(val), config.eval_pairs).tolist()]

    def task(self) -> Task:
        """The same for the training loop."""
        prompts = [example.ids[: example.prompt].tobytes() for example in self.held_out]
        shuffled = mismatched(self.held_out, strangers(prompts, self.config.seed), len(self.layout.begin), self.block_size)
        weights = self.base.weights["norm.weight"].numpy().tobytes()  # a small part that no step leaves as it was
        return Task(
            stage="tuning",
            tokenizer=self.base.tokenizer,
            order=self.base.order,
            draw=lambda first_row, rows: self.train_rows.draw(self.config.seed, first_row, rows),
            validation=self.rows_of(self.held_out),
            sample=self.sample,
            smaller="If it is on already, only a model pretrained with a shorter context or a smaller shape will fit",
            controls={"responses shuffled": self.rows_of(shuffled)} if len(set(prompts)) > 1 else {},
            identity={
                "the pretrained checkpoint": f"step {self.base.step} ({hashlib.sha256(weights).hexdigest()[:12]})",
                "the pairs": f"{self.pairs:,} ({self.dataset.fingerprint})",
                "--loss-on": self.config.loss_on,
                "--eval-pairs": self.config.eval_pairs,
            },
        )

    def rows_of(self, examples: list[Example]) -> Callable[[int], Iterator[Rows]]:
        """The examples in rows, always the same, of which the instructions count."""
        packed = pack([example.length for example in examples], self.block_size)
        rows = [[examples[index] for index in row] for row in packed]
        filler = self.layout.tokenizer.end_of_text

        def batches(batch_size: int) -> Iterator[Rows]:
            # Every batch of one height: a compiled model wants one shape.
            for start in range(0, len(rows), batch_size):
                yield lay(rows[start : start + batch_size], self.block_size, filler, "instruction", batch_size)

        return batches

    def sample(self, model: GPT, step: int) -> str:
        """Held-out responses, shorter and longer ones, with the instruction that the model writes and the true one."""
        lines = []
        different = {example.ids[: example.prompt].tobytes(): example for example in self.held_out}
        by_length = sorted(different.values(), key=lambda example: example.prompt)
        for index in (spread(len(by_length), SHOWN_PAIRS) + len(by_length) // (2 * SHOWN_PAIRS)).tolist():
            example = by_length[index]
            response, true = (
                arrange(self.layout.tokenizer.decode(ids), self.layout.order)
                for ids in (example.ids[: example.prompt], example.ids[example.prompt :])
            )
            [(written, _)] = write(
                Engine(model), Responses(self.layout, self.block_size), [response], Sampling(SHOWN_TOKENS, temperature=0)
            )
            for name, text in (("response", response), ("generated", written), ("true", true)):
                shown = " ".join(text.split())
                lines.append(f"{name + ':':10} {shown[:SHOWN_CHARACTERS]}" + (" ..." if len(shown) > SHOWN_CHARACTERS else ""))
        return "\n".join(lines)


def open_data(config: FinetuneConfig, base: Checkpoint) -> Dataset:
    """The pairs to learn, made with the tokenizer and in the order of the checkpoint, none too long for it."""
    dataset = open_dataset(Path(config.data_dir), "pairs", check_hashes=config.verify)
    again = (
        f"--tokenizer {base.path} --vocab-size {base.tokenizer.vocab_size} --order {base.order} --block-size {base.model_config.block_size}"
    )
    way_out = f"Make them again: python preprocess_instruct.py {again} --data-dir ..."
    if dataset.meta["tokenizer_sha256"] != base.tokenizer.sha256:
        raise UserError(
            f"the pairs in {config.data_dir} were made with tokenizer {dataset.meta['tokenizer_sha256'][:12]} ({dataset.vocab_size} ids), "
            f"{base.path} has tokenizer {base.tokenizer.sha256[:12]} ({base.tokenizer.vocab_size} ids). {way_out}",
            BAD_FLAGS,
        )
    if dataset.order != base.order:
        raise UserError(
            f"the pairs in {config.data_dir} are {dataset.order}, the model of {base.path} is {base.order}. {way_out}", BAD_FLAGS
        )
    longest = dataset.meta["settings"]["block_size"]
    if longest > base.model_config.block_size:
        raise UserError(
            f"the pairs in {config.data_dir} were made for a context of {longest} tokens, {base.path} has {base.model_config.block_size}. "
            f"{way_out}",
            BAD_FLAGS,
        )
    return dataset


def main() -> None:
    config = read_flags(FINETUNE_PRESETS, __doc__)
    folder = Path(config.out_dir)
    if config.plot:
        print(f"drew {draw_loss(folder)}")
        return
    base = load_checkpoint(Path(config.model_path))
    dataset = open_data(config, base)
    tuning = Tuning(config, base, dataset)
    rows = len(tuning.train_rows)
    max_steps = math.ceil(config.epochs * rows / config.rows_per_step)
    config = dataclasses.replace(
        config, model=base.model_config, max_steps=max_steps, warmup_steps=min(config.warmup_steps, max_steps // 10)
    )
    facts = (
        f"{tuning.pairs:,} pairs in {rows:,} rows of {tuning.block_size} tokens, {tuning.padding:.1%} of them padding; "
        f"{config.epochs:g} epochs are {max_steps:,} steps of {config.rows_per_step} rows"
    )
    made_for = dataset.meta["settings"]["block_size"]
    if made_for < tuning.block_size:
        facts += f"; the pairs were cut for a context of {made_for}, though this one is larger"
    if rows < config.rows_per_step:
        facts += f"; fewer rows than a step takes, so try --batch-size {max(1, rows // 8)} and more --epochs"
    with claim(folder, "--out-dir"):
        train(config, tuning.task(), lambda: base.make_model(torch.device("cpu")), "--epochs", facts)


if __name__ == "__main__":
    run(main)
