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

from checkpoint import BEST, LAST
from config import TRAIN_PRESETS, TrainConfig, describe, read_flags, save_config
from device import cannot_compile, choose_device, choose_dtype, device_name
from engine import write
from errors import UserError, run
from metrics import PICTURE, draw_loss
from model import GPT
from shards import Rows, Windows, open_dataset
from text import Order
from tokenizer import Tokenizer
from training import Task, Trainer, last_checkpoint, require_room


def pretraining(config: TrainConfig, order: Order, tokenizer: Tokenizer, train: Windows, val: Windows) -> Task:
    """Windows of the training shards in a new order every epoch, a fixed set of the validation shards."""
    limit = min(max(1, config.eval_tokens // config.model.block_size), len(val))
    val_windows = val.spread(limit - limit % min(limit, config.batch_size))  # whole batches: a compiled model wants one shape

    def draw(first_row: int, rows: int) -> Rows:
        return train.draw(config.seed, first_row, rows)

    def validation(batch_size: int) -> Iterator[Rows]:
        return (val.read(val_windows[start : start + batch_size]) for start in range(0, len(val_windows), batch_size))

    def sample(model: GPT, step: int) -> str:
        if not config.sample_tokens:
            return ""
        generator = torch.Generator().manual_seed(config.seed + step)
        return write(model, tokenizer, order, config.sample_prompt, config.sample_tokens, generator, temperature=0.8)

    return Task(tokenizer, order, draw, validation, sample)


def main() -> None:
    config = read_flags(TRAIN_PRESETS, __doc__)
    folder = Path(config.out_dir)
    if config.plot:
        print(f"drew {draw_loss(folder)}")
        return
    dataset = open_dataset(Path(config.data_dir))
    order = dataset.order
    if config.order not in (None, order):
        raise UserError(f"--order {config.order}: {config.data_dir} is {order}. Run: preprocess_xcoax.py --order {config.order}")
    tokenizer = Tokenizer.load(dataset.folder)
    if tokenizer.sha256 != dataset.meta["tokenizer_sha256"]:
        raise UserError(f"{dataset.folder / 'tokenizer.model'} is not the tokenizer that the shards in {dataset.folder} were made with")
    model_config = dataclasses.replace(config.model, vocab_size=dataset.vocab_size)
    config = dataclasses.replace(config, model=model_config)
    train, val = (Windows(dataset.stream(split), model_config.block_size, tokenizer.end_of_text) for split in ("train", "val"))
    task = pretraining(config, order, tokenizer, train, val)
    last = last_checkpoint(config, model_config, task)
    if last and last.step >= config.max_steps:
        print(f"{folder / LAST} is at step {last.step} of {config.max_steps} already. To go on, give more --max-steps")
        return

    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    torch.manual_seed(config.seed)
    model = GPT(model_config).to(device)
    model.checkpoint_activations = config.checkpoint_activations
    require_room(folder, model)
    available = len(dataset.stream("train"))
    tokens_per_step = config.rows_per_step * model_config.block_size
    tokens = config.max_steps * tokens_per_step
    print(
        describe(
            config,
            f"{model.count_parameters() / 1e6:.1f} M parameters on {device_name(device)} in {str(dtype).removeprefix('torch.')}",
            f"{available:,} training tokens in {config.data_dir}, {order}; {tokens_per_step:,} in a step, {tokens:,} in all, "
            f"{tokens / available:.2f} epochs",
        )
    )
    save_config(folder / "config.json", config)
    if config.compile:
        trouble = cannot_compile(device)
        if trouble:
            print(f"torch.compile does not work here, going on without it: {trouble}")
        else:
            model.compile()
    trainer = Trainer(config, model, task, device, dtype)
    if last:
        trainer.resume(last)
        print(f"going on from {last.path} at step {last.step}")
        report_changes(last.train_config, dataclasses.asdict(config))
    trainer.run()
    print(f"finished: the lowest validation loss, {trainer.best_loss:.4f}, is in {folder / BEST}; the curve is in {folder / PICTURE}")


def report_changes(was: dict[str, object], now: dict[str, object]) -> None:
    """Say what is set otherwise than when the run began: allowed, but not silent."""
    changes = [f"{name} was {was.get(name)}, now {now[name]}" for name in now if was.get(name) != now[name]]
    if changes:
        print(f"set otherwise than before: {'; '.join(changes)}")


if __name__ == "__main__":
    run(main)
