"""Train BackGPT on the token shards of preprocess_xcoax.py.

    python train_xcoax.py
    python train_xcoax.py tinystories --max-steps 2000
    python train_xcoax.py --plot

Stop it whenever you like: the same command goes on from the last checkpoint.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from config import TrainConfig
from disk import claim
from engine import Engine, Sampling
from errors import BAD_FLAGS, UserError, run
from flags import read_flags
from metrics import draw_loss
from model import GPT
from presets import TRAIN_PRESETS
from session import train
from shards import SPLITS, Dataset, Rows, Windows, open_dataset
from tokenizer import Tokenizer
from training import Task
from writing import Endings, write


def pretraining(config: TrainConfig, dataset: Dataset, tokenizer: Tokenizer) -> Task:
    """Windows of the training shards in a new order every epoch, a fixed set of the validation shards."""
    block_size = config.model.block_size
    train, val = (Windows(dataset.stream(split), block_size, tokenizer.end_of_text) for split in SPLITS)
    val_windows = val.spread(max(1, config.eval_tokens // block_size))

    def draw(first_row: int, rows: int) -> Rows:
        return train.draw(config.seed, first_row, rows)

    def validation(batch_size: int) -> Iterator[Rows]:
        # Every batch of one height: a compiled model wants one shape.
        return (val.read(val_windows[start : start + batch_size], batch_size) for start in range(0, len(val_windows), batch_size))

    def sample(model: GPT, step: int) -> str:
        if not config.sample_tokens:
            return ""
        form = Endings(tokenizer, dataset.order, block_size)
        sampling = Sampling(config.sample_tokens, temperature=0.8, seed=config.seed + step)
        [(text, _)] = write(Engine(model), form, [config.sample_prompt], sampling)
        return text

    return Task("pretraining", tokenizer, dataset.order, draw, validation, sample)


def open_data(config: TrainConfig) -> tuple[Dataset, Tokenizer]:
    """The shards to train on and the tokenizer they were made with."""
    dataset = open_dataset(Path(config.data_dir), check_hashes=config.verify)
    if config.order not in (None, dataset.order):
        raise UserError(
            f"--order {config.order}: {config.data_dir} is {dataset.order}. For the twin, run: "
            f"python preprocess_xcoax.py --order {config.order} --tokenizer {config.data_dir} --data-dir {config.data_dir}-{config.order}",
            BAD_FLAGS,
        )
    tokenizer = Tokenizer.load(dataset.folder)
    if tokenizer.sha256 != dataset.meta["tokenizer_sha256"]:
        raise UserError(f"{dataset.folder / 'tokenizer.model'} is not the tokenizer that the shards beside it were made with")
    return dataset, tokenizer


def main() -> None:
    config = read_flags(TRAIN_PRESETS, __doc__)
    folder = Path(config.out_dir)
    if config.plot:
        print(f"drew {draw_loss(folder)}")
        return
    dataset, tokenizer = open_data(config)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=dataset.vocab_size))
    available, tokens_per_step = len(dataset.stream("train")), config.rows_per_step * config.model.block_size
    facts = (
        f"{available:,} training tokens in {config.data_dir}, {dataset.order}; {tokens_per_step:,} in a step, "
        f"{config.max_steps * tokens_per_step:,} in all, {config.max_steps * tokens_per_step / available:.2f} epochs"
    )
    with claim(folder, "--out-dir"):
        train(config, pretraining(config, dataset, tokenizer), lambda: GPT(config.model), "--max-steps", facts)


if __name__ == "__main__":
    run(main)
