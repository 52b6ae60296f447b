"""The one training loop. What differs between pretraining and tuning comes in as a Task."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from checkpoint import BEST, LAST, Checkpoint, load_checkpoint, save_checkpoint
from config import IGNORE, LoopConfig, Stage
from device import autocast, peak_flops
from errors import Stopped, StopSignals, UserError, silence
from evaluation import Loss, measure_loss, to_device
from metrics import Metrics, draw_loss
from model import GPT
from optimizer import learning_rate, make_optimizer
from shards import Rows
from text import Order
from tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """What is learnt: the same loop serves every one."""

    stage: Stage
    tokenizer: Tokenizer
    order: Order
    draw: Callable[[int, int], Rows]  # rows number .. from .. on, of an endless sequence: a function of its arguments alone
    validation: Callable[[int], Iterable[Rows]]  # the same rows every time, in batches of ..
    sample: Callable[[GPT, int], str]  # a text the model wrote at this step, for a person to read; empty for none
    smaller: str = "If it is on already, try a smaller --block-size or a smaller model"  # the way out when one sequence does not fit
    # What the validation loss is compared with, by name: the same measured on other rows.
    controls: Mapping[str, Callable[[int], Iterable[Rows]]] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)  # what a run that goes on must share with the one that stopped


class Trainer:
    """A run: its model, its optimizer and how far it came."""

    def __init__(self, config: LoopConfig, model: GPT, task: Task, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        self.model = model
        self.task = task
        self.device = device
        self.dtype = dtype
        self.folder = Path(config.out_dir)
        self.optimizer = make_optimizer(model, config, device.type)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.micro_batch = config.batch_size
        self.step = self.tokens = 0
        self.resumed_step = self.saved_step = 0
        self.best_loss = math.inf
        self.signals = StopSignals("finishing this step and saving")

    def run(self) -> None:
        """Train to the last step, or until a signal; then draw the curve."""
        config = self.config
        progress = tqdm(total=config.max_steps, initial=self.step, unit=" steps", disable=None, smoothing=0.05)
        with self.signals, progress, Metrics(self.folder, self.step, config.tensorboard) as metrics, ThreadPoolExecutor(1) as reader:
            clock = Clock(self.tokens)
            rows = reader.submit(self.task.draw, self.step * config.rows_per_step, config.rows_per_step)
            while True:
                is_stopping, is_last = self.signals.received is not None, self.step >= config.max_steps
                is_new = self.step > self.resumed_step or self.step == 0
                if is_new and (self.step % config.eval_every == 0 or is_last):
                    clock.pause()
                    self.evaluate(metrics)
                    clock.go_on()
                elif is_new and is_stopping and self.step:
                    self.save(LAST, math.nan)
                if is_last or is_stopping:
                    break
                batch = rows.result()
                rows = reader.submit(self.task.draw, (self.step + 1) * config.rows_per_step, config.rows_per_step)
                values = self.take_step(batch)
                progress.update()
                if self.step % config.log_every == 0 or self.step == 1:
                    values |= clock.speed(self.tokens, self.model.flops_per_token(), peak_flops(self.device, self.dtype))
                    metrics.add(self.step, tokens=self.tokens, **values)
                    self.say(self.describe(values))
        draw_loss(self.folder)
        if self.signals.received and self.step < config.max_steps:
            kept = f"saved in {self.folder / LAST}" if self.saved_step else "before there was anything to save"
            raise Stopped(f"stopped at step {self.step}, {kept}. The same command goes on", self.signals.received)

    def say(self, text: str) -> None:
        """Print beside the progress bar. A reader that has left (`| head`, a `tee` that got the same Ctrl-C) is a wish to stop."""
        try:
            tqdm.write(text)
        except BrokenPipeError:
            silence()
            self.signals.received = self.signals.received or signal.SIGPIPE

    def take_step(self, rows: Rows) -> dict[str, float]:
        """One optimizer step on the rows, however many micro-batches it takes."""
        lr = learning_rate(self.config, self.step)
        loss = self.fit(lambda: self.add_gradients(rows))
        self.optimizer.set_learning_rate(lr)
        for optimizer in self.optimizer.optimizers:
            self.scaler.unscale_(optimizer)
        limit = self.config.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).item()
        # With a scaler an infinite gradient is ordinary: the step is skipped and the scale lowered, unless that leads nowhere.
        is_lost = not math.isfinite(norm) and (not self.scaler.is_enabled() or self.scaler.get_scale() < 1)
        if is_lost or not math.isfinite(loss):
            raise UserError(
                f"step {self.step + 1}: the loss is {loss}, the gradient's norm {norm}; nothing after step {self.saved_step} is saved. "
                f"Try a lower --lr, a longer --warmup-steps or --dtype float32; if it fails again at once, begin anew in another --out-dir"
            )
        if math.isfinite(norm):
            self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad()
        self.step += 1
        self.tokens += rows.tokens
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
                loss = self.model(*to_device(part, self.device)) / targets
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total.item()

    def fit(self, compute: Callable[[], T]) -> T:
        """Compute in micro-batches as large as the memory allows; the rows of a step stay the same."""
        while True:
            try:
                return compute()
            except torch.OutOfMemoryError:
                pass  # what the failed attempt holds is only let go of outside this block
            if self.micro_batch == 1:
                raise UserError(
                    f"one sequence of {self.model.config.block_size} tokens does not fit in the memory of the {self.device.type} device. "
                    f"Try --checkpoint-activations. {self.task.smaller}"
                )
            self.micro_batch = math.ceil(self.micro_batch / 2)
            self.optimizer.zero_grad()
            torch.cuda.empty_cache()
            torch.compiler.reset()  # or the new shape would be compiled as one of any size, which is slower
            parts = math.ceil(self.config.rows_per_step / self.micro_batch)
            self.say(f"out of memory: {self.micro_batch} sequences in a micro-batch now, {parts} micro-batches in a step")

    def evaluate(self, metrics: Metrics) -> None:
        """Measure, sample, save."""
        task = self.task
        loss = self.fit(partial(self.measure, "validation", task.validation))
        if not math.isfinite(loss.nats_per_token):
            raise UserError(
                f"step {self.step}: the validation loss is {loss.nats_per_token}; nothing after step {self.saved_step} is saved. "
                "Try a lower --lr, a longer --warmup-steps or --dtype float32"
            )
        is_best = self.step > 0 and loss.nats_per_token < self.best_loss
        values = {"val_loss": loss.nats_per_token, "bits_per_byte": loss.bits_per_byte}
        line = f"step {self.step}: validation loss {loss.nats_per_token:.4f}, {loss.bits_per_byte:.4f} bits per byte"
        for name, rows in task.controls.items():
            control = self.fit(partial(self.measure, name, rows))
            key = name.replace(" ", "_")
            values |= {f"val_loss_{key}": control.nats_per_token, f"bits_per_byte_{key}": control.bits_per_byte}
            line += f" ({name}: {control.nats_per_token:.4f}, {control.bits_per_byte:.4f})"
        sample = task.sample(self.model, self.step)
        metrics.add(self.step, tokens=self.tokens, **values, sample=sample)
        if self.step:
            self.best_loss = min(self.best_loss, loss.nats_per_token)
            self.save(LAST, loss.nats_per_token)
        if is_best:
            self.save(BEST, loss.nats_per_token)
        line += ", the best so far" if is_best else ""
        self.say("\n".join([line, *("    | " + text for text in sample.splitlines())]))

    def measure(self, name: str, rows: Callable[[int], Iterable[Rows]]) -> Loss:
        """The loss on rows; a bar shows that something is going on."""
        batches = tqdm(rows(self.micro_batch), desc=name, unit=" batches", leave=False, disable=None)
        return measure_loss(self.model, batches, self.task.tokenizer.bytes_per_id, self.dtype)

    def describe(self, values: dict[str, float]) -> str:
        """A log line."""
        share = f" ({values['share_of_peak']:.0%} of peak)" if "share_of_peak" in values else ""
        return (
            f"step {self.step}/{self.config.max_steps}  loss {values['loss']:.4f}  lr {values['lr']:.2e}  norm {values['grad_norm']:.2f}  "
            f"{values['tokens_per_second']:,.0f} tokens/s  {values['tflops']:.2f} TFLOP/s{share}"
        )

    def save(self, name: str, val_loss: float) -> None:
        """Write a checkpoint; the last one also holds what resuming needs."""
        resuming = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []},
            "best_val_loss": self.best_loss,
        }
        save_checkpoint(
            self.folder / name,
            model=self.model,
            train_config=dataclasses.asdict(self.config),
            stage=self.task.stage,
            identity=dict(self.task.identity),
            tokenizer=self.task.tokenizer,
            order=self.task.order,
            step=self.step,
            tokens=self.tokens,
            val_loss=val_loss,
            resuming=resuming if name == LAST else None,
        )
        self.saved_step = self.step

    def resume(self, last: Checkpoint) -> None:
        """Go on from a last checkpoint as if the run had never stopped."""
        assert last.resuming is not None
        self.model.load_state_dict(last.weights)
        self.optimizer.load_state_dict(last.resuming["optimizer"])
        self.scaler.load_state_dict(last.resuming["scaler"])
        random = last.resuming["random"]
        torch.set_rng_state(random["cpu"])
        if self.device.type == "cuda" and len(random["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(random["cuda"])
        self.step = self.resumed_step = self.saved_step = last.step
        self.tokens, self.best_loss = last.tokens, last.resuming["best_val_loss"]
        best = self.folder / BEST
        if last.val_loss == self.best_loss and not (best.is_file() and load_checkpoint(best, self.task.stage).step == last.step):
            self.save(BEST, last.val_loss)  # the run was killed between the two


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
