"""What a run reports: log lines beside a progress bar, and metrics.jsonl."""

import contextlib
import math
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from config import LoopConfig
from system.errors import discard_output
from system.escapes import escape_controls
from system.signals import StopSignals
from training.copying import FIRST, SECOND
from training.loss import Loss
from training.metrics import MetricsLog
from training.step import StepResult
from training.throughput import Throughput
from training.time_left import TimeLeft, describe_duration
from training.time_plan import UNPLANNED


class RunLog:
    """The reports of one run. A reader that leaves (`| head`, a `tee` that got the same Ctrl-C) counts as a wish to stop."""

    def __init__(self, config: LoopConfig, signals: StopSignals, is_first: bool = True) -> None:
        self._config = config
        self._signals = signals
        self._is_first = is_first  # of the ranks: the others log nothing
        self._context = contextlib.ExitStack()
        self._progress: tqdm[Any] | None = None
        self._metrics: MetricsLog | None = None
        self._loss_at_start = math.inf

    def open(self, step: int, tokens: int, seconds: float, flops_per_token: float, peak_flops: float | None) -> "RunLog":
        """Begin to report from this step on; use the result as a context."""
        self._progress = self._context.enter_context(
            tqdm(total=self._total, initial=step, unit=" steps", disable=None, smoothing=0.05, dynamic_ncols=True)
        )
        if self._is_first:
            self._metrics = self._context.enter_context(MetricsLog(Path(self._config.out_dir), step, self._config.tensorboard))
        self.throughput = Throughput(tokens, seconds, flops_per_token, peak_flops)
        self._first_step = step + 1  # of this sitting: it may compile, so speed and time left are measured from its end
        self._time_left = TimeLeft(self._config.eval_every)
        return self

    def use(self, config: LoopConfig) -> None:
        """Show another number of steps from now on."""
        self._config = config
        if self._progress is not None:
            self._progress.total = self._total

    @property
    def _total(self) -> int | None:
        return self._config.max_steps if self._config.max_steps < UNPLANNED else None

    def step(self, step: int, tokens: int, read: Callable[[], list[StepResult]]) -> None:
        """Report a training step, every `log_every` steps: only then `read` waits for it."""
        assert self._progress is not None, "the log is not open"
        self._progress.update()
        is_logged = step % self._config.log_every == 0 or step == 1
        if not is_logged and step != self._first_step:
            return
        result = read()[-1]  # before the time is measured
        speed = self.throughput.measure(tokens)
        seconds_left = self._time_left.measure(step, self._total, speed["seconds"], self.throughput.seconds_per_pause)
        if not is_logged:
            return
        self._add(step, tokens=tokens, loss=result.loss, lr=result.lr, grad_norm=result.grad_norm, **speed)
        total = f"/{self._total}" if self._total else ""
        left = f"  {describe_duration(seconds_left)} left" if seconds_left is not None else ""
        share = f" ({speed['share_of_peak']:.0%} of peak)" if "share_of_peak" in speed else ""
        self.say(
            f"step {step}{total}  loss {result.loss:.4f}  lr {result.lr:.2e}  norm {result.grad_norm:.2f}  "
            f"{speed['tokens_per_second']:,.0f} tokens/s  {_flops(speed['tflops'])}{share}{left}"
        )

    def evaluation(
        self, step: int, tokens: int, loss: Loss, controls: Mapping[str, Loss], figures: Mapping[str, float], sample: str, is_best: bool
    ) -> str:
        """Write an evaluation to metrics.jsonl; returns the lines to print once its checkpoint is saved."""
        values = {"val_loss": loss.nats_per_token, "bits_per_byte": loss.bits_per_byte}
        line = f"step {step}: validation loss {loss.nats_per_token:.4f}, {loss.bits_per_byte:.4f} bits per byte"
        for name, control in controls.items():
            key = name.replace(" ", "_")
            values |= {f"val_loss_{key}": control.nats_per_token, f"bits_per_byte_{key}": control.bits_per_byte}
            if name not in (FIRST, SECOND):
                line += f" ({name}: {control.nats_per_token:.4f}, {control.bits_per_byte:.4f})"
        if SECOND in controls:
            share = controls[SECOND].nats_per_token / controls[FIRST].nats_per_token
            line += f", a second copy of random tokens costs {share:.0%} of the first"
        line += "".join(f", {name} {share:.1%}" for name, share in figures.items())
        values |= {name.lower().replace(" ", "_"): share for name, share in figures.items()}
        self._add(step, tokens=tokens, seconds=self.throughput.seconds, **values, sample=sample)
        if step == 0:
            self._loss_at_start = loss.nats_per_token
        line += ", the best so far" if is_best else ""
        if is_best and loss.nats_per_token > self._loss_at_start:  # of a model that was trained before
            line += f" since the start, which had {self._loss_at_start:.4f}"
        return "\n".join([line, *("    | " + text for text in sample.splitlines())])

    def _add(self, step: int, **values: float | str) -> None:
        if self._metrics:
            self._metrics.add(step, **values)

    def sync(self) -> None:
        """Make metrics.jsonl durable, before a checkpoint after which a run would not repeat these steps."""
        if self._metrics:
            self._metrics.sync()

    def say(self, text: str) -> None:
        """Print beside the progress bar."""
        try:
            tqdm.write(escape_controls(text))
        except BrokenPipeError:
            discard_output()
            self._signals.received = self._signals.received or signal.SIGPIPE

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._context.close()


def _flops(tflops: float) -> str:
    return f"{tflops:.2f} TFLOP/s" if tflops >= 0.1 else f"{1000 * tflops:.3g} GFLOP/s"
