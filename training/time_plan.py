"""How many steps fit into the hours that a run was given, by the speed that it measures itself."""

import math
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

UNPLANNED = 1 << 40  # the number of steps before there is a plan
FIRST_STEPS = 10  # before the first plan, or fewer if they take FIRST_SHARE of the time
FIRST_SHARE = 0.02
SHORTEST_STEP = 1e-9  # seconds; less was never measured
RECORD_GROWTH = 1.01  # a step is recorded if it is this many times as far as the one before: a long run keeps few records


class TimePlan:
    """The time of one run, over all the times that it was resumed."""

    def __init__(self, hours: float, eval_every: int) -> None:
        self._limit = 3600 * hours
        self._eval_every = eval_every
        self._began = time.monotonic()
        self.used_before = 0.0  # seconds, before the run was resumed
        self._evaluating = 0.0  # seconds, since then
        self._evaluated = 0  # evaluations, since then
        self._records: list[tuple[int, float]] = []  # step, and the seconds of training until then, in this process
        self._per_step: float | None = None
        self._per_evaluation = 0.0

    @property
    def seconds(self) -> float:
        """Time that the run has taken so far, without the time that it was stopped."""
        return self.used_before + time.monotonic() - self._began

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds, "seconds_per_step": self._per_step, "seconds_per_evaluation": self._per_evaluation}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue the time of an earlier process."""
        per_step = state["seconds_per_step"]
        for name, value, least in (
            ("seconds", state["seconds"], 0.0),
            ("seconds_per_step", SHORTEST_STEP if per_step is None else per_step, SHORTEST_STEP),
            ("seconds_per_evaluation", state["seconds_per_evaluation"], 0.0),
        ):
            if not least <= value < math.inf:
                raise ValueError(f"{name} is {value}")
        self.used_before, self._per_step, self._per_evaluation = state["seconds"], per_step, state["seconds_per_evaluation"]

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """An evaluation takes place in this context."""
        began = time.monotonic()
        yield
        self._evaluating += time.monotonic() - began
        self._evaluated += 1
        self._per_evaluation = self._evaluating / self._evaluated  # they differ: some measure more than others

    def total_steps(self, step: int) -> int | None:
        """Steps in the whole run, as far as is known after this one; None before there is a plan."""
        trained = self.seconds - self._evaluating
        began = self._records[0][0] if self._records else step
        if len(self._records) < 2 or step - began >= RECORD_GROWTH * (self._records[-1][0] - began):
            self._records.append((step, trained))
        if len(self._records) > 2:  # the first step may compile
            # Over the latest half, so that the plan follows a machine that slows down.
            then, trained_then = self._records[bisect_left(self._records, (began + step) / 2, key=lambda record: record[0])]
            self._per_step = (trained - trained_then) / (step - then)
        is_early = len(self._records) < FIRST_STEPS and self.seconds < FIRST_SHARE * self._limit and not self.used_before
        if self._per_step is None or is_early:
            return None if self.seconds < self._limit else step
        return step + self._steps_left(step, self._per_step)

    def _steps_left(self, step: int, per_step: float) -> int:
        left = self._limit - self.seconds - self._per_evaluation  # an evaluation ends every run
        steps = max(0, int(left / (per_step + self._per_evaluation / self._eval_every)) + 1)
        while steps and steps * per_step + self._evaluations(step, steps) * self._per_evaluation > left:
            steps -= 1
        return steps

    def _evaluations(self, step: int, steps: int) -> int:
        """Evaluations during these steps, without the one at the end."""
        return (step + steps - 1) // self._eval_every - step // self._eval_every

    def describe(self) -> str:
        """The measurements that the plan follows from."""
        return f"{self._per_step or 0:.3g} s a step, {self._per_evaluation:.3g} s an evaluation"
