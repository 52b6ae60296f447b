"""A run that is given hours instead of steps ends on time, however often it is stopped."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.checkpoint import LAST, load_checkpoint
from tests.training.runs import pretrain, tune
from training import time_plan
from training.time_plan import TimePlan

EVAL_EVERY = 50


class Machine:
    """A machine whose clock only a step, an evaluation or a stop moves."""

    def __init__(self, hours: float, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.hours = hours
        patch.setattr("time.monotonic", lambda: self.now)
        self.plan = TimePlan(hours, EVAL_EVERY)
        self.step, self.total = 0, time_plan.UNPLANNED
        self.used = 0.0  # seconds, without the stops

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.used += seconds

    def evaluate(self, seconds: float) -> None:
        with self.plan.evaluation():
            self.work(seconds)

    def take_step(self, seconds: float, evaluation: float) -> None:
        self.work(seconds)
        self.step += 1
        self.total = self.plan.total_steps(self.step) or self.total
        if self.step % EVAL_EVERY == 0 or self.step >= self.total:
            self.evaluate(evaluation)

    def restart(self) -> None:
        state = self.plan.state()
        self.now += 12345.0
        self.plan = TimePlan(self.hours, EVAL_EVERY)
        self.plan.load_state(state)


@given(
    step=st.floats(0.5, 5),
    evaluation=st.floats(0, 60),
    compiling=st.floats(0, 60),
    slower=st.floats(0.7, 1.5),
    stops=st.sets(st.integers(1, 400), max_size=4),
)
def test_a_run_ends_within_three_percent_of_its_time(
    step: float, evaluation: float, compiling: float, slower: float, stops: set[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(1.0, patch)
        machine.evaluate(evaluation + compiling / 2)
        machine.work(compiling)
        while machine.step < machine.total:
            if machine.step in stops:
                machine.restart()
            speed = step * (1 if machine.used < 1800 else slower) * (0.9 if machine.step % 2 else 1.1)
            machine.take_step(speed, evaluation)
    assert machine.used == pytest.approx(3600, rel=0.03)


def test_a_run_that_is_too_short_for_a_plan_ends_after_the_step_that_is_over_time() -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(0.001, patch)
        machine.take_step(2.0, 0.5)
        assert machine.total == time_plan.UNPLANNED
        machine.take_step(2.0, 0.5)
    assert (machine.step, machine.total) == (2, 2)


def test_the_plan_is_printed_kept_and_resumed(dataset_folder: Path, tmp_path: Path) -> None:
    flags = ("--hours", 0.001, "--max-steps", 100, "--warmup-steps", 10, "--schedule", "wsd", "--eval-every", 1000)
    result = pretrain(dataset_folder, tmp_path, *flags)
    assert result.returncode == 0, result.stderr
    assert "0.001 hours are about" in result.stdout
    assert "finished in 0.00" in result.stdout
    last = load_checkpoint(tmp_path / LAST)
    assert last.resume_state is not None
    assert last.step == last.train_config["max_steps"]
    assert 0 < last.train_config["warmup_steps"] < 0.2 * last.step
    again = pretrain(dataset_folder, tmp_path, *flags)
    assert "has already trained for 0.001 hours. To train longer, raise --hours" in again.stdout
    longer = pretrain(dataset_folder, tmp_path, *flags, "--hours", 0.0015)
    assert longer.returncode == 0, longer.stderr
    extended = load_checkpoint(tmp_path / LAST)
    assert extended.resume_state is not None
    assert extended.step > last.step
    assert extended.resume_state["plan"]["seconds"] > last.resume_state["plan"]["seconds"]
    assert extended.train_config["warmup_steps"] == last.train_config["warmup_steps"]


def test_tuning_takes_hours_too(base: Path, pairs: Path, tmp_path: Path) -> None:
    result = tune(base, pairs, tmp_path, "--hours", 0.0005)
    assert result.returncode == 0, result.stderr
    assert "0.0005 hours of steps" in result.stdout
    assert "finished in 0.000" in result.stdout


def test_hours_that_are_not_above_zero_are_refused(dataset_folder: Path, tmp_path: Path) -> None:
    result = pretrain(dataset_folder, tmp_path, "--hours", 0)
    assert result.returncode == 2
    assert "--hours 0.0: above 0" in result.stderr
