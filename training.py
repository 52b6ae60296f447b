"""The one training loop. What differs between pretraining and tuning comes in as a Task."""

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from checkpoint import BEST, LAST, Checkpoint, load_checkpoint, save_checkpoint
from config import IGNORE, ModelConfig, TrainConfig
from device import autocast, peak_flops
from errors import Stopped, StopSignals, UserError
from evaluation import measure_loss
from metrics import Metrics, draw_loss
from model import GPT
from optimizer import learning_rate, make_optimizer
from shards import Rows
from text import Order
from tokenizer import Tokenizer


@dataclass(frozen=True)
class Task:
    """What is learnt: the same loop serves every one."""

    tokenizer: Tokenizer
    order: Order
    draw: Callable[[int, int], Rows]  # rows number .. from .. on, of an endless sequence: a function of its arguments alone
    validation: Callable[[int], Iterable[Rows]]  # the same rows every time, in batches of ..
    sample: Callable[[GPT, int], str]  # a text the model wrote at this step, for a person to read; empty for none


class Trainer:
    """A run: its model, its optimizer and how far it came."""

    def __init__(self, config: TrainConfig, model: GPT, task: Task, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        self.model = model
        self.task = task
        self.device = device
        self.dtype = dtype
        self.folder = Path(config.out_dir)
        self.optimizer = make_optimizer(model, config, device.type)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.micro_batch = config.batch_size
        self.step = 0
        self.tokens = 0
        self.best_loss = math.inf

    def run(self) -> None:
        """Train to the last step, or until a signal; then draw the curve."""
        config, resumed_step = self.config, self.step
        signals = StopSignals("finishing this step and saving")
        progress = tqdm(total=config.max_steps, initial=self.step, unit=" steps", disable=None, smoothing=0.05)
        with signals, progress, Metrics(self.folder, resumed_step, config.tensorboard) as metrics, ThreadPoolExecutor(1) as reader:
            clock = Clock(self.tokens)
            rows = reader.submit(self.task.draw, self.step * config.rows_per_step, config.rows_per_step)
            while True:
                is_last = self.step >= config.max_steps
                if (self.step % config.eval_every == 0 or is_last) and (self.step > resumed_step or self.step == 0):
                    clock.pause()
                    progress.write(self.evaluate(metrics))
                    clock.go_on()
                elif signals.received:
                    self.save(LAST, math.nan)
                if is_last or signals.received:
                    break
                batch = rows.result()
                rows = reader.submit(self.task.draw, (self.step + 1) * config.rows_per_step, config.rows_per_step)
                values = self.take_step(batch)
                progress.update()
                if self.step % config.log_every == 0 or self.step == 1:
                    values |= clock.speed(self.tokens, self.model.flops_per_token(), peak_flops(self.device, self.dtype))
                    metrics.add(self.step, tokens=self.tokens, **values)
                    progress.write(self.describe(values))
        draw_loss(self.folder)
        if signals.received and self.step < config.max_steps:
            raise Stopped(f"stopped at step {self.step}, saved in {self.folder / LAST}. The same command goes on", signals.received)

    def take_step(self, rows: Rows) -> dict[str, float]:
        """One optimizer step on the rows, however many micro-batches it takes."""
        lr = learning_rate(self.config, self.step)
        while True:
            try:
                loss = self.add_gradients(rows)
                break
            except torch.OutOfMemoryError as error:
                self.halve_micro_batch(error)
        self.optimizer.set_learning_rate(lr)
        for optimizer in self.optimizer.optimizers:
            self.scaler.unscale_(optimizer)
        limit = self.config.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).item()
        # With a scaler an infinite gradient is ordinary: it skips the step and lowers its scale.
        if not math.isfinite(loss) or not (math.isfinite(norm) or self.scaler.is_enabled()):
            raise UserError(
                f"step {self.step + 1}: the loss is {loss}, the gradient's norm {norm}. The last good checkpoint stays in {self.folder}. "
                "Try a lower --lr, a longer --warmup-steps, or --dtype float32"
            )
        if math.isfinite(norm):
            self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad()
        self.step += 1
        self.tokens += int((rows.targets != IGNORE).sum())
        return {"loss": loss, "lr": lr, "grad_norm": norm}

    def add_gradients(self, rows: Rows) -> float:
        """Gradients of the mean loss over all targets of the rows; returns that loss."""
        self.model.train()
        self.optimizer.zero_grad()
        targets = int((rows.targets != IGNORE).sum())
        total = torch.zeros((), device=self.device)
        for start in range(0, len(rows.inputs), self.micro_batch):
            part = rows[start : start + self.micro_batch]
            with autocast(self.device, self.dtype):
                loss = self.model(self.to_device(part.inputs), self.to_device(part.targets)) / targets
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total.item()

    def to_device(self, array: Any) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor.to(self.device)

    def halve_micro_batch(self, error: torch.OutOfMemoryError) -> None:
        """Make room on the GPU; the rows of a step stay the same."""
        if self.micro_batch == 1:
            raise UserError(
                f"one sequence of {self.model.config.block_size} tokens does not fit in the memory of the {self.device.type} device. "
                "Try --checkpoint-activations, a smaller --block-size or a smaller model"
            ) from error
        self.micro_batch = math.ceil(self.micro_batch / 2)
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        parts = math.ceil(self.config.rows_per_step / self.micro_batch)
        tqdm.write(f"out of memory: {self.micro_batch} sequences in a micro-batch now, {parts} micro-batches in a step")

    def evaluate(self, metrics: Metrics) -> str:
        """Measure, save and sample."""
        loss = measure_loss(self.model, self.task.validation(self.micro_batch), self.task.tokenizer.bytes_per_id, self.dtype)
        is_best = loss.nats_per_token < self.best_loss
        if self.step and is_best:
            self.best_loss = loss.nats_per_token
            self.save(BEST, loss.nats_per_token)
        if self.step:
            self.save(LAST, loss.nats_per_token)
        sample = self.task.sample(self.model, self.step)
        metrics.add(self.step, tokens=self.tokens, val_loss=loss.nats_per_token, bits_per_byte=loss.bits_per_byte, sample=sample)
        best = ", the best so far" if is_best and self.step else ""
        line = f"step {self.step}: validation loss {loss.nats_per_token:.4f}, {loss.bits_per_byte:.4f} bits per byte{best}"
        return "\n".join([line, *("    | " + text for text in sample.splitlines())])

    def describe(self, values: dict[str, float]) -> str:
        """A log line."""
        share = f" ({values['share_of_peak']:.0%} of peak)" if "share_of_peak" in values else ""
        return (
            f"step {self.step}/{self.config.max_steps}  loss {values['loss']:.4f}  lr {values['lr']:.2e}  norm {values['grad_norm']:.2f}  "
            f"{values['tokens_per_second']:,.0f} tokens/s  {values['tflops']:.2f} TFLOP/s{share}"
        )

    def save(self, name: str, val_loss: float) -> None:
        """Write a checkpoint; the last one also holds what resuming needs."""
        is_last = name == LAST
        random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []}
        save_checkpoint(
            self.folder / name,
            model=self.model,
            train_config=dataclasses.asdict(self.config),
            tokenizer=self.task.tokenizer,
            order=self.task.order,
            step=self.step,
            tokens=self.tokens,
            val_loss=val_loss,
            optimizer={"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()} if is_last else None,
            random=random if is_last else None,
        )

    def resume(self, last: Checkpoint) -> None:
        """Go on from a last checkpoint as if the run had never stopped."""
        assert last.optimizer is not None and last.random is not None
        self.model.load_state_dict(last.weights)
        self.optimizer.load_state_dict(last.optimizer["optimizer"])
        self.scaler.load_state_dict(last.optimizer["scaler"])
        torch.set_rng_state(last.random["cpu"])
        if self.device.type == "cuda" and len(last.random["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(last.random["cuda"])
        self.step, self.tokens = last.step, last.tokens
        best = self.folder / BEST
        self.best_loss = load_checkpoint(best).val_loss if best.is_file() else math.inf


class Clock:
    """Tokens a second between log lines, without the time that evaluations take."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._start = time.monotonic()
        self._paused = 0.0

    def pause(self) -> None:
        self._paused = time.monotonic()

    def go_on(self) -> None:
        self._start += time.monotonic() - self._paused

    def speed(self, tokens: int, flops_per_token: float, peak: float | None) -> dict[str, float]:
        now = time.monotonic()
        rate = (tokens - self._tokens) / (now - self._start)
        self._start, self._tokens = now, tokens
        flops = rate * flops_per_token
        return {"tokens_per_second": rate, "tflops": flops / 1e12, **({"share_of_peak": flops / peak} if peak else {})}


def last_checkpoint(config: TrainConfig, model_config: ModelConfig, task: Task) -> Checkpoint | None:
    """The checkpoint that this run goes on from, if there is one; one of another kind of run is refused."""
    path = Path(config.out_dir) / LAST
    if not path.is_file():
        return None
    last = load_checkpoint(path)
    differences = [
        f"{field.name} was {getattr(last.model_config, field.name)}, now {getattr(model_config, field.name)}"
        for field in dataclasses.fields(ModelConfig)
        if getattr(last.model_config, field.name) != getattr(model_config, field.name)
    ]
    if last.tokenizer.sha256 != task.tokenizer.sha256:
        differences.append(f"tokenizer was {last.tokenizer.sha256[:12]}, now {task.tokenizer.sha256[:12]}")
    if last.order != task.order:
        differences.append(f"order was {last.order}, now {task.order}")
    if differences:
        raise UserError(f"{path} is of another run: {'; '.join(differences)}. Give the same settings, another --out-dir, or delete it")
    return last


def require_room(folder: Path, model: GPT) -> None:
    """Refuse before the first step what would fail at the first checkpoint: best, last and the file being written."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = 4 * model.count_parameters() * (1 + 3 + 3)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: the checkpoints need {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free. Make room or give --out-dir")
