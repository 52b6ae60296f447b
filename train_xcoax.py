"""Train BackGPT on the token shards of preprocess_xcoax.py.

    python train_xcoax.py
    python train_xcoax.py tinystories --max-steps 2000
    python train_xcoax.py --plot

Stop it whenever you like: the same command goes on from the last checkpoint.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch

from checkpoint import BEST
from config import TRAIN_PRESETS, TrainConfig, describe, differences, read_flags
from device import cannot_compile, choose_device, choose_dtype, device_name
from disk import claim, write_json
from engine import write
from errors import BAD_FLAGS, UserError, run
from metrics import PICTURE, draw_loss
from model import GPT
from shards import SPLITS, Dataset, Rows, Windows, open_dataset
from tokenizer import Tokenizer
from training import Task, Trainer, find_last, require_room


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
        generator = torch.Generator().manual_seed(config.seed + step)
        return write(model, tokenizer, dataset.order, config.sample_prompt, config.sample_tokens, generator, temperature=0.8)

    return Task(tokenizer, dataset.order, draw, validation, sample)


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
    with claim(folder, "--out-dir"):
        train(config, pretraining(config, dataset, tokenizer), dataset)


def train(config: TrainConfig, task: Task, dataset: Dataset) -> None:
    """Make or resume the model and train it."""
    folder = Path(config.out_dir)
    last = find_last(config, task)
    if last and last.step >= config.max_steps:
        draw_loss(folder)
        print(f"{last.path} is at step {last.step} of {config.max_steps} already. To go on, give more --max-steps")
        return
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    trouble = cannot_compile(device) if config.compile else None
    if trouble:
        print(f"torch.compile does not work here, going on without it: {trouble}")
    torch.manual_seed(config.seed)
    model = GPT(config.model).to(device)
    model.checkpoint_activations = config.checkpoint_activations
    require_room(folder, model)
    trainer = Trainer(config, model, task, device, dtype)
    available, tokens_per_step = len(dataset.stream("train")), config.rows_per_step * config.model.block_size
    facts = (
        f"{model.count_parameters() / 1e6:.1f} M parameters on {device_name(device)} in {str(dtype).removeprefix('torch.')}",
        f"{available:,} training tokens in {config.data_dir}, {task.order}; {tokens_per_step:,} in a step, "
        f"{config.max_steps * tokens_per_step:,} in all, {config.max_steps * tokens_per_step / available:.2f} epochs",
    )
    print(describe(config, *facts))
    if last:
        trainer.resume(last)
        changes = differences(last.train_config, dataclasses.asdict(config))
        print(f"going on from {last.path} at step {last.step}" + (f"; set otherwise: {'; '.join(changes)}" if changes else ""))
        del last  # its weights would stay in memory
    write_json(folder / "config.json", {**dataclasses.asdict(config), "resolved": facts})
    if config.compile and not trouble:
        model.compile(dynamic=False)
    trainer.run()
    print(f"finished: the lowest validation loss, {trainer.best_loss:.4f}, is in {folder / BEST}; the curve is in {folder / PICTURE}")


if __name__ == "__main__":
    run(main)
