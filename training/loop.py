"""The training loop: steps, evaluations and checkpoints, until the last step or a signal."""

import contextlib
import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from config import LoopConfig
from formats.batches import Batch
from formats.checkpoint import BEST, LAST, NUMBERED, PLAN, SECONDS, UNEXPECTED, Checkpoint, save_checkpoint
from model import GPT
from system.amounts import amount
from system.device import peak_flops
from system.errors import UserError, first_line
from system.ranks import ALONE, Ranks
from system.signals import Stopped, StopSignals
from training.device_batch import BatchCopier
from training.loss import Loss, measure_loss
from training.loss_curve import redraw_loss_curve
from training.run_log import RunLog
from training.sharding import all_whole, give_back, load_weights, local, whole_model
from training.step import Stepper, StepResult
from training.task import Batches, TrainingTask
from training.time_left import describe_duration
from training.time_plan import UNPLANNED, TimePlan

READ_EVERY = 1000  # steps, however rarely they are logged: a run that is lost ends, and what it measured is not kept for ever


class Trainer:
    """A run in progress."""

    def __init__(
        self, config: LoopConfig, model: GPT, task: TrainingTask, device: torch.device, dtype: torch.dtype, ranks: Ranks = ALONE
    ) -> None:
        self._warmup_share = config.warmup_steps / config.max_steps
        # Until there is a plan, a run that was given hours has no end.
        self.config = config = config if config.hours is None else dataclasses.replace(config, max_steps=UNPLANNED)
        self.model = model
        self.task = task
        self.ranks = ranks
        self.folder = Path(config.out_dir)
        self.signals = StopSignals("finishing this step and saving" if ranks.is_first else "")
        self.log = RunLog(config, self.signals, ranks.is_first)
        self.stepper = Stepper(config, model, device, dtype, self.log.say, ranks, task.question_weight)
        self.copier = BatchCopier(device)
        self.step = self.tokens = 0
        self._seconds = 0.0  # of training, before the run was resumed
        self.resumed_step = self.saved_step = 0
        self.best_loss = math.inf
        self.plan = TimePlan(config.hours, config.eval_every) if config.hours else None

    def run(self) -> None:
        """Train to the last step, or until a signal; then draw the loss curve."""
        if not self.ranks.is_first:  # the weights began alike; dropout does not
            torch.manual_seed((self.config.seed + self.step * self.ranks.count + self.ranks.number) % (1 << 63))
        peak = peak_flops(self.stepper.device, self.stepper.dtype)
        peak = peak and peak * self.ranks.count
        log = self.log.open(self.step, self.tokens, self._seconds, self.model.flops_per_token(), peak)
        with self.signals, log, ThreadPoolExecutor(1) as reader:  # the next batch is read and copied to the device while a step runs
            batch = reader.submit(self.draw, self.step)
            while True:
                stopping, is_last = self.ranks.largest(self.signals.received or 0), self.step >= self.config.max_steps
                is_new = self.step > self.resumed_step or self.step == 0
                if is_new and self.step and self.config.keep_every and self.step % self.config.keep_every == 0:
                    self.read_steps()
                    self.save(NUMBERED.format(self.step), math.nan)
                if is_new and (self.step % self.config.eval_every == 0 or is_last):
                    self.evaluate()
                elif is_new and stopping and self.step:
                    self.read_steps()
                    self.save(LAST, math.nan)
                if is_last or stopping:
                    break
                current, batch = batch.result(), reader.submit(self.draw, self.step + 1)
                self.take_step(current)
                log.step(self.step, self.tokens, self.read_steps)
                self._follow_plan()
        if self.ranks.is_first:
            redraw_loss_curve(self.folder)
        if stopping and not is_last:
            kept = f"saved in {self.folder / LAST}" if self.saved_step else "before there was anything to save"
            raise Stopped(f"stopped at step {self.step}, {kept}. Run the same command again to resume", stopping)

    def describe_time(self) -> str:
        """The time of the run over all its sittings, and that of this one. The plan counts evaluations too."""
        total, before = (self.plan.seconds, self.plan.used_before) if self.plan else (self.log.throughput.seconds, self._seconds)
        taken = describe_duration(total) + ("" if self.plan else " of training")
        if not self.resumed_step:
            return taken
        # Earlier sittings may have been without --hours, or of a version that did not measure them.
        return f"{taken}, {describe_duration(total - before)} of it in this sitting" if before else f"{taken} in this sitting"

    def draw(self, step: int) -> Batch:
        """This process's part of the batch of a step, on the device."""
        size = self.ranks.share(self.config.sequences_per_step)
        return self.copier.copy(self.task.draw((step * self.ranks.count + self.ranks.number) * size, size))

    def take_step(self, batch: Batch) -> None:
        """Start one optimizer step."""
        if self.step and self.step % READ_EVERY == 0:
            self.read_steps()
        self.stepper.step(batch, self.step)
        self.step += 1
        self.tokens += int(self.ranks.total(batch.tokens)[0])

    def read_steps(self) -> list[StepResult]:
        """Wait for the steps since the last call; a loss or gradient that is not finite ends the run."""
        results = self.stepper.read()
        for result in results:
            if not result.is_finite:
                raise self._diverged(f"step {result.number}: the loss is {result.loss}, the gradient norm {result.grad_norm}")
        return results

    def evaluate(self) -> None:
        """Measure, sample, save, report. The time it takes does not count as training time."""
        self.read_steps()  # the time of the steps that the device still computes does count
        with self.log.throughput.paused(), self.plan.evaluation() if self.plan else contextlib.nullcontext():
            loss = self._measure("validation", self.task.validation)
            if not math.isfinite(loss.nats_per_token):
                raise self._diverged(f"step {self.step}: the validation loss is {loss.nats_per_token}")
            controls = {name: self._measure(name, batches) for name, batches in self.task.controls.items()}
            model = whole_model(self.model)
            figures = self.task.figures(model, self.step, self.stepper.micro_batch, self.ranks)
            sample = self.task.sample(model, self.step) if self.ranks.is_first else ""
            del model  # perhaps a copy
            is_best = self.step > 0 and loss.nats_per_token < self.best_loss
            report = self.log.evaluation(self.step, self.tokens, loss, controls, figures, sample, is_best)
            if self.step:
                self.best_loss = min(self.best_loss, loss.nats_per_token)
                self.save(LAST, loss.nats_per_token)
            if is_best:
                self.save(BEST, loss.nats_per_token)
            self.log.say(report)

    def _follow_plan(self) -> None:
        """Adapt the number of steps to the time that is left."""
        if self.plan is None:
            return
        is_first = self.config.max_steps == UNPLANNED
        if is_first:
            self.read_steps()  # the plan needs the time of steps that are computed, not only launched
        steps = self.ranks.first(self.plan.total_steps(self.step))
        if steps is None:
            return
        is_warming_up = is_first or self.step < self.config.warmup_steps
        warmup = round(self._warmup_share * steps) if is_warming_up else self.config.warmup_steps
        self._use(dataclasses.replace(self.config, max_steps=steps, warmup_steps=warmup))
        if is_first:
            cooldown = f", {round(steps * self.config.cooldown_share):,} of cooldown" if self.config.schedule == "wsd" else ""
            hours = amount(self.config.hours or 0, "hour")
            self.log.say(
                f"{hours} will be about {steps:,} steps, {warmup:,} of warmup{cooldown}: {self.plan.describe()}. "
                "The number follows the speed until the end"
            )

    def _use(self, config: LoopConfig) -> None:
        self.config = self.stepper.config = config
        self.log.use(config)

    def _measure(self, name: str, batches: Batches) -> Loss:
        """The loss on batches, divided among the ranks, with a progress bar."""

        def measure() -> Loss:
            found = batches(self.stepper.micro_batch).part(self.ranks.number, self.ranks.count)
            shown = tqdm(found, desc=name, unit=" batches", leave=False, disable=None, dynamic_ncols=True)
            return measure_loss(self.model, shown, self.task.tokenizer.bytes_per_id, self.stepper.dtype)

        loss = Loss(*self.ranks.total(*self.stepper.within_memory(measure)))
        give_back(self.model)
        return loss

    def _diverged(self, what: str) -> UserError:
        if self.step == 0:
            return UserError(f"{what} before training. Try --dtype float32; if that does not help, start from another model")
        kept = f"{self.folder / LAST} of step {self.saved_step} is intact" if self.saved_step else "nothing was saved yet"
        return UserError(
            f"{what}; {kept}. Try a lower --lr than {self.config.lr:g}, a longer --warmup-steps or --dtype float32; "
            "if it fails again at once, start over in another --out-dir"
        )

    def save(self, name: str, val_loss: float) -> None:
        """Write a checkpoint; the last one also holds what resuming needs. Weights that are not finite are not saved."""
        is_finite = all(local(parameter).isfinite().all() for parameter in self.model.parameters())
        if self.ranks.largest(not is_finite):
            raise self._diverged(f"step {self.step}: the weights are not finite")
        weights = all_whole(self.model.state_dict(), self.ranks.is_first)
        resume_state = all_whole(self._resume_state(), self.ranks.is_first) if name == LAST else None
        if self.ranks.is_first:
            self.log.sync()
            self._write(name, val_loss, weights, resume_state)
        if name == LAST:
            self.saved_step = self.step

    def _write(self, name: str, val_loss: float, weights: dict[str, torch.Tensor], resume_state: dict[str, Any] | None) -> None:
        save_checkpoint(
            self.folder / name,
            weights=weights,
            model_config=self.model.config,
            train_config=dataclasses.asdict(self.config),
            stage=self.task.stage,
            must_match={**self.task.must_match, **self.task.data},
            tokenizer=self.task.tokenizer,
            order=self.task.order,
            step=self.step,
            tokens=self.tokens,
            val_loss=val_loss,
            resume_state=resume_state,
        )

    def _resume_state(self) -> dict[str, Any]:
        """What a run needs beside the weights to go on as if it had never stopped."""
        return {
            "optimizer": self.stepper.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if self.stepper.device.type == "cuda" else [],
            },
            "best_val_loss": self.best_loss,
            PLAN: self.plan.state() if self.plan else None,
            SECONDS: self.log.throughput.seconds,
        }

    def resume(self, last: Checkpoint) -> None:
        """Continue from a last checkpoint as if the run had never stopped."""
        assert last.resume_state is not None
        load_weights(self.model, last.weights)
        self.step = self.resumed_step = self.saved_step = last.step
        self.tokens = last.tokens
        self._seconds = last.resume_state[SECONDS] or 0.0
        try:
            self._restore(last, last.resume_state)
        except torch.OutOfMemoryError:
            raise
        except UNEXPECTED as error:
            problem = first_line(error)
            raise UserError(f"{last.path} is damaged: it cannot be resumed ({problem}). Use another --out-dir, or delete it") from error
        if not self.task.has_new_data(last.must_match):  # losses on other data do not compare: the next evaluation is the best so far
            self.best_loss = last.resume_state["best_val_loss"]

    def _restore(self, last: Checkpoint, state: dict[str, Any]) -> None:
        """What a step depends on besides the weights."""
        self.stepper.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where the run was not in float16
            self.stepper.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.stepper.device.type == "cuda" and len(state["random"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["random"]["cuda"])
        if self.plan and state[PLAN]:
            self.plan.load_state(state[PLAN])
            planned = self.ranks.first(self.plan.total_steps(self.step)) or last.train_config["max_steps"]
            max_steps = max(planned, self.step + 1)  # a run that has no time left still ends with an evaluation
            self._use(dataclasses.replace(self.config, max_steps=max_steps, warmup_steps=last.train_config["warmup_steps"]))
