"""Starting a training run, or resuming it from its last checkpoint."""

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from config import PATHS, LoopConfig, ModelConfig
from formats.batches import SHUFFLE
from formats.checkpoint import BEST, LAST, Checkpoint, load_checkpoint, numbered_checkpoints, save_checkpoint
from model import GPT
from system.amounts import amount
from system.compiler import compile_problem, is_compiler_error
from system.device import choose_dtype, device_name, explain_out_of_memory
from system.errors import BAD_FLAGS, UserError, first_line, require
from system.escapes import one_line, tell
from system.files import lock_folder
from system.memory import keep_freed_memory, machine_memory
from system.processors import usable_processors
from system.ranks import Ranks, join_ranks
from system.settings import changed_settings, describe_settings
from training.loop import Trainer
from training.loss_curve import PICTURE, redraw_loss_curve
from training.run_record import end_sitting, likeness, write_record
from training.schedule import describe_longer_schedule
from training.sharding import shard_model
from training.task import RANDOM, START, TrainingTask

CORE_FLOPS = 1e11  # a second, in float32, roughly; for a warning


def run_training(config: LoopConfig, task: TrainingTask, make_model: Callable[[], GPT], longer: str, *facts: str) -> None:
    """Train a new model, or resume, with all the processes that torchrun started. `longer` is the flag that extends a finished run."""
    folder = Path(config.out_dir)
    with join_ranks(config.device) as (ranks, device), explain_out_of_memory("Try a lower --batch-size, or a smaller model"):
        require_equal_parts(config, ranks)
        with lock_folder(folder, "--out-dir") if ranks.is_first else contextlib.nullcontext():
            ranks.wait_for_first()
            _train(config, task, make_model, ranks, device, longer, *facts)


def require_equal_parts(config: LoopConfig, ranks: Ranks) -> None:
    """Refuse a batch that the processes cannot divide."""
    if config.sequences_per_step % ranks.count:
        unit = ranks.count // math.gcd(ranks.count, config.grad_accum)  # what --batch-size must be a multiple of
        nearest = max(1, round(config.batch_size / unit)) * unit
        raise UserError(
            f"--batch-size {config.batch_size} × --grad-accum {config.grad_accum}: {ranks.count} processes cannot divide "
            f"{config.sequences_per_step} sequences equally. The nearest that works is --batch-size {nearest}",
            BAD_FLAGS,
        )


def _train(
    config: LoopConfig,
    task: TrainingTask,
    make_model: Callable[[], GPT],
    ranks: Ranks,
    device: torch.device,
    longer: str,
    *facts: str,
) -> None:
    folder = Path(config.out_dir)
    last = checkpoint_to_resume(config, task)
    ranks.require_same(
        {
            "the tokenizer": task.tokenizer.sha256[:12],
            "the word order": task.order,
            **{f"--{name.replace('_', '-')}": value for name, value in dataclasses.asdict(config).items() if name not in PATHS},
            **task.must_match,
            **task.data,
            f"{folder / LAST}": f"of step {last.step}" if last else "not there",
        }
    )
    if last and ranks.is_first:
        complete_best(last)
    if last and is_finished(config, last):
        if ranks.is_first:
            redraw_loss_curve(folder)
            end_sitting(config, last.step)  # unless a kill after the last step left it open
        done = (
            f"has already trained for {amount(config.hours, 'hour')}"
            if config.hours
            else f"is already at step {last.step} of {config.max_steps}"
        )
        tell(f"{last.path} {done}. To train longer, raise {'--hours' if config.hours else longer}")
        return
    if device.type == "cpu":
        keep_freed_memory()
    dtype = choose_dtype(config.dtype, device)
    require(not config.shard or ranks.count > 1, "--shard: start several processes with torchrun, or leave it out")
    require(not config.shard or dtype != torch.float16, "--shard: float16 is not supported. Use --dtype bfloat16")
    problem = compile_problem(device) if config.compile else None
    if problem:
        tell(f"torch.compile does not work here, continuing without it: {problem}")
    torch.manual_seed(config.seed)
    require_memory(config.model, device)
    model = make_model().to(device)
    model.checkpoint_activations = config.checkpoint_activations
    if ranks.is_first:
        require_disk_space(config, model)
    if config.compile and not problem:
        _compile(model, config.shard)
    if config.shard:
        shard_model(model, ranks, device)
    trainer = Trainer(config, model, task, device, dtype, ranks)
    where = device_name(device) if ranks.count == 1 else f"{ranks.count} × {device_name(device)}"
    size = f"{model.count_parameters() / 1e6:.1f} M parameters on {where} in {str(dtype).removeprefix('torch.')}"
    tell(describe_settings(config, size, *facts, *likeness(config), *([] if last else long_step(config, model, device))))
    if last:
        trainer.resume(last)
        now = dataclasses.asdict(trainer.config)  # an earlier version did not have all of these settings
        compared = now.keys() & last.train_config.keys() - {"like"} - ({"max_steps", "warmup_steps"} if trainer.plan else set())
        changes = changed_settings(last.train_config, {name: now[name] for name in now if name in compared})
        tell(f"resuming from {last.path} at step {last.step}" + (f"; changed settings: {'; '.join(changes)}" if changes else ""))
        is_planned = config.hours is not None and config.hours == last.train_config.get("hours")  # the steps follow the speed
        if not is_planned and (longer_schedule := describe_longer_schedule(trainer.config, last.train_config, last.step)):
            tell(longer_schedule)
        if SHUFFLE.keys() & (task.must_match.keys() - last.must_match.keys()):  # an earlier version had one order and recorded none
            tell("this run began in an earlier version's order of sequences: until its epoch ends, some come twice and others not at all")
        del last  # frees its weights
    if ranks.is_first:
        write_record(config, task, trainer.step, size, *facts)
    try:
        trainer.run()
    except BaseException as error:
        if ranks.is_first:
            with contextlib.suppress(OSError):  # of a full disk the checkpoint has told already
                end_sitting(config, trainer.saved_step)
        if isinstance(error, RuntimeError) and is_compiler_error(error):
            raise UserError(
                f"torch.compile failed: {first_line(error)}. Add --no-compile; or, if its cache was damaged by a kill, delete it, "
                "or set TORCHINDUCTOR_CACHE_DIR to another folder"
            ) from error
        raise
    if ranks.is_first:
        end_sitting(config, trainer.saved_step)
    tell(
        f"finished in {trainer.describe_time()}: lowest validation loss {trainer.best_loss:.4f}, saved in {folder / BEST}; "
        f"loss curve in {folder / PICTURE}"
    )


def _compile(model: GPT, in_blocks: bool) -> None:
    """Compile the model, or its blocks: the exchange of a divided model takes place between them."""
    for module in model.blocks if in_blocks else [model]:
        module.compile(dynamic=False)


def checkpoint_to_resume(config: LoopConfig, task: TrainingTask) -> Checkpoint | None:
    """The last checkpoint of this run, if there is one; that of a different run is refused."""
    path = Path(config.out_dir) / LAST
    if not path.is_file():
        if path.with_name(BEST).is_file():
            raise UserError(
                f"{path.with_name(BEST)} belongs to a run that left no {LAST} to resume from. Use another --out-dir, or delete it"
            )
        return None
    last = load_checkpoint(path, task.stage, mapped=False)  # mapped, the file would keep its disk space after it is replaced
    if last.resume_state is None:
        raise UserError(f"{path} holds no optimizer state, so it cannot be resumed. Use another --out-dir, or delete it")
    if last.stage != task.stage:
        raise UserError(f"{path} comes from {last.stage}, and this is {task.stage}. Use another --out-dir")
    was = dataclasses.asdict(last.model_config) | {"tokenizer": last.tokenizer.sha256[:12], "order": last.order}
    now = dataclasses.asdict(config.model) | {"tokenizer": task.tokenizer.sha256[:12], "order": task.order}
    settings = {name: last.train_config.get(name) for name in ("batch_size", "grad_accum", "seed", "max_steps", "warmup_steps", "hours")}
    if not all(isinstance(value, int) or (name == "hours" and isinstance(value, float | None)) for name, value in settings.items()):
        raise UserError(f"{path} is damaged: its settings are {one_line(str(settings), 200)}. Use another --out-dir, or delete it")
    # A batch is a range of a shuffled order: with a different size or seed some sequences would come twice and some never.
    was |= {"sequences per step": last.train_config["batch_size"] * last.train_config["grad_accum"], "seed": last.train_config["seed"]}
    now |= {"sequences per step": config.sequences_per_step, "seed": config.seed}
    changes = changed_settings(was, now) + _recorded_changes(last, task.must_match)
    other_data = _recorded_changes(last, task.data)
    if changes or (other_data and not config.new_data):
        way_out = "Use the same settings or another --out-dir" + ("" if changes else ", or resume on other data with --new-data")
        raise UserError(f"{path} comes from a different run: {'; '.join([*changes, *other_data])}. {way_out}")
    return last


def complete_best(last: Checkpoint) -> None:
    """Write the best checkpoint from the last one, if the run was killed between the two."""
    assert last.resume_state is not None
    best = last.path.with_name(BEST)
    if last.val_loss != last.resume_state["best_val_loss"] or (best.is_file() and load_checkpoint(best, last.stage).step == last.step):
        return
    save_checkpoint(
        best,
        weights=last.weights,
        model_config=last.model_config,
        train_config=last.train_config,
        stage=last.stage,
        must_match=last.must_match,
        tokenizer=last.tokenizer,
        order=last.order,
        step=last.step,
        tokens=last.tokens,
        val_loss=last.val_loss,
    )


def is_finished(config: LoopConfig, last: Checkpoint) -> bool:
    """Whether a run has nothing left to do."""
    if config.hours is None:
        return last.step >= config.max_steps
    planned: float | None = last.train_config.get("hours")  # an earlier version did not have it
    return planned is not None and config.hours <= planned and last.step >= last.train_config["max_steps"]


def _recorded_changes(last: Checkpoint, wanted: Mapping[str, Any]) -> list[str]:
    """What differs among the settings that the checkpoint recorded; an earlier version did not know all of them."""
    was = {START: RANDOM, **last.must_match}
    return changed_settings(was, {name: value for name, value in wanted.items() if name in was})


def long_step(config: LoopConfig, model: GPT, device: torch.device) -> list[str]:
    """A warning, if a step will take a CPU minutes: the published run is for a GPU."""
    operations = model.flops_per_token() * config.sequences_per_step * config.model.block_size
    cores = usable_processors()
    minutes = operations / (CORE_FLOPS * cores) / 60
    if device.type != "cpu" or minutes < 2:
        return []
    return [
        f"warning: a step of {operations / 1e12:,.0f} TFLOP may take {minutes:,.0f} minutes on {amount(cores, 'CPU core')}. "
        "Without a GPU use a smaller --batch-size and --grad-accum, and for a new model a smaller shape, as the preset demo has"
    ]


def require_memory(shape: ModelConfig, device: torch.device) -> None:
    """Refuse a model for which the machine has too little memory, before it is built: the system would kill the process."""
    copies = 4 if device.type == "cpu" else 1  # weights; their gradients and at most two moments; in float32
    needed, there = copies * 4 * shape.parameters, machine_memory()
    if needed > there:
        raise UserError(
            f"a model of {shape.parameters / 1e6:,.0f} M parameters needs {needed / 1e9:,.0f} GB of memory here, and this machine has "
            f"{there / 1e9:,.0f} GB. Use fewer --n-layer or a smaller --n-embed"
        )


def require_disk_space(config: LoopConfig, model: GPT) -> None:
    """Refuse to start where the checkpoints will not fit: best, last, numbered ones, and the temporary file that replaces one."""
    folder = Path(config.out_dir)
    last = 3 * 4 * model.count_parameters()  # weights and at most two moments, in float32
    files = [path for path in (folder / BEST, folder / LAST, *numbered_checkpoints(folder)) if path.is_file()]
    there = sum(path.stat().st_size for path in files)
    kept = config.max_steps // config.keep_every if config.keep_every and config.hours is None else 0
    needed, free = last // 3 * (1 + kept) + 2 * last - there, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: the checkpoints need {needed / 1e6:,.0f} MB more, but only {free / 1e6:,.0f} MB are free. "
            "Free some space or use another --out-dir"
        )
