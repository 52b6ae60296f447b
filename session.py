"""A run of training from its start, or from where it stopped, to its end."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from checkpoint import BEST, LAST, Checkpoint, load_checkpoint
from config import LoopConfig
from device import cannot_compile, choose_device, choose_dtype, device_name
from disk import write_json
from errors import UserError, first_line
from flags import describe, differences
from metrics import PICTURE, draw_loss
from model import GPT
from training import Task, Trainer


def train(config: LoopConfig, task: Task, make_model: Callable[[], GPT], longer: str, *facts: str) -> None:
    """Make or resume the model and train it. `longer` is the flag that lets a finished run go on."""
    folder = Path(config.out_dir)
    last = find_last(config, task)
    if last and last.step >= config.max_steps:
        draw_loss(folder)
        print(f"{last.path} is at step {last.step} of {config.max_steps} already. To go on, give more {longer}")
        return
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    trouble = cannot_compile(device) if config.compile else None
    if trouble:
        print(f"torch.compile does not work here, going on without it: {trouble}")
    torch.manual_seed(config.seed)
    model = make_model().to(device)
    model.checkpoint_activations = config.checkpoint_activations
    require_room(folder, model)
    trainer = Trainer(config, model, task, device, dtype)
    size = f"{model.count_parameters() / 1e6:.1f} M parameters on {device_name(device)} in {str(dtype).removeprefix('torch.')}"
    print(describe(config, size, *facts))
    if last:
        trainer.resume(last)
        changes = differences(last.train_config, dataclasses.asdict(config))
        print(f"going on from {last.path} at step {last.step}" + (f"; set otherwise: {'; '.join(changes)}" if changes else ""))
        del last  # its weights would stay in memory
    write_json(folder / "config.json", {**dataclasses.asdict(config), "resolved": [size, *facts]})
    if config.compile and not trouble:
        model.compile(dynamic=False)
    try:
        trainer.run()
    except torch._dynamo.exc.TorchDynamoException as error:
        raise UserError(
            f"torch.compile failed: {first_line(error)}. Add --no-compile; or perhaps its cache is damaged, as after a kill: "
            "delete it, or name another folder in TORCHINDUCTOR_CACHE_DIR"
        ) from error
    print(f"finished: the lowest validation loss, {trainer.best_loss:.4f}, is in {folder / BEST}; the curve is in {folder / PICTURE}")


def find_last(config: LoopConfig, task: Task) -> Checkpoint | None:
    """The checkpoint that this run goes on from, if there is one; one of another kind of run is refused."""
    path = Path(config.out_dir) / LAST
    if not path.is_file():
        if path.with_name(BEST).is_file():
            raise UserError(f"{path.with_name(BEST)} is of a run that left no {LAST} to go on from. Give another --out-dir, or delete it")
        return None
    last = load_checkpoint(path, task.stage, mapped=False)  # mapped, the file would stay on the disk after it is replaced
    if last.resuming is None:
        raise UserError(f"{path} holds no optimizer, so it cannot be resumed. Give another --out-dir, or delete it")
    if last.stage != task.stage:
        raise UserError(f"{path} is of a run of {last.stage}, and this is {task.stage}. Give another --out-dir")
    was = dataclasses.asdict(last.model_config) | {"tokenizer": last.tokenizer.sha256[:12], "order": last.order}
    now = dataclasses.asdict(config.model) | {"tokenizer": task.tokenizer.sha256[:12], "order": task.order}
    # Batches are counted in rows of a shuffled order: with other numbers some would come twice and some never.
    was |= {"rows in a step": last.train_config["batch_size"] * last.train_config["grad_accum"], "seed": last.train_config["seed"]}
    now |= {"rows in a step": config.rows_per_step, "seed": config.seed}
    was, now = was | last.identity, now | dict(task.identity)
    changes = differences(was, now)
    if changes:
        raise UserError(f"{path} is of another run: {'; '.join(changes)}. Give the same settings or another --out-dir")
    return last


def require_room(folder: Path, model: GPT) -> None:
    """Refuse before the first step what would fail at the first checkpoint: best, last, and the file that will take its place."""
    last = 3 * 4 * model.count_parameters()  # weights and at most two running means, in float32
    there = sum((folder / name).stat().st_size for name in (BEST, LAST) if (folder / name).is_file())
    needed, free = last // 3 + 2 * last - there, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: the checkpoints need {needed / 1e6:,.0f} MB more, {free / 1e6:,.0f} are free. Make room or give another --out-dir"
        )
