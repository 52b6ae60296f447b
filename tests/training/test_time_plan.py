"""A run that is given hours instead of steps ends on time, however often it is stopped."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.checkpoint import BEST, LAST, load_checkpoint
from tests.training.counting import counting_batch, make_trainer
from tests.training.runs import pretrain, tune
from training import time_plan
from training.metrics import METRICS, read_metrics
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


def test_a_long_run_keeps_few_records() -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(10.0, patch)
        while machine.step < machine.total:
            machine.take_step(1.0 if machine.step < 20_000 else 2.0, 5.0)
        assert machine.used == pytest.approx(36_000, rel=0.01)
        assert len(machine.plan._records) < 1000


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
    assert "0.001 hours will be about" in result.stdout
    assert "finished in " in result.stdout
    last = load_checkpoint(tmp_path / LAST)
    assert last.resume_state is not None
    assert last.step == last.train_config["max_steps"]
    assert last.train_config["warmup_steps"] > 0
    again = pretrain(dataset_folder, tmp_path, *flags)
    assert "has already trained for 0.001 hours. To train longer, raise --hours" in again.stdout
    longer = pretrain(dataset_folder, tmp_path, *flags, "--hours", 0.0015)
    assert longer.returncode == 0, longer.stderr
    extended = load_checkpoint(tmp_path / LAST)
    assert extended.resume_state is not None
    assert extended.step > last.step
    assert extended.resume_state["plan"]["seconds"] > last.resume_state["plan"]["seconds"]
    assert extended.train_config["warmup_steps"] == last.train_config["warmup_steps"]


class _Plan(TimePlan):
    """A plan of these numbers of steps, one after the other."""

    def __init__(self, *totals: int) -> None:
        super().__init__(1.0, EVAL_EVERY)
        self._totals = list(totals)

    def total_steps(self, step: int) -> int:
        return self._totals.pop(0)


def test_the_warmup_keeps_its_share_of_the_plan_until_it_is_over(dataset_folder: Path, tmp_path: Path) -> None:
    """The first evaluation compiles, so the first plan may have far too few steps."""
    trainer = make_trainer(dataset_folder, tmp_path, hours=1.0, max_steps=100, warmup_steps=10)
    trainer.plan = _Plan(200, 1000, 900, 2000)
    warmups = []
    for step in (10, 15, 90, 95):
        trainer.step = step
        trainer._follow_plan()
        warmups.append((trainer.config.max_steps, trainer.config.warmup_steps))
    assert warmups == [(200, 20), (1000, 100), (900, 90), (2000, 90)]


def test_a_resumed_run_without_time_still_ends_with_an_evaluation(dataset_folder: Path, tmp_path: Path) -> None:
    """Else the steps after the last evaluation would never be measured, and every resumption would repeat that."""
    trainer = make_trainer(dataset_folder, tmp_path, hours=1.0, log_every=1)
    with trainer.log.open(0, 0, 0.0, 1.0, None):
        for step in range(3):
            trainer.take_step(counting_batch(step))
        trainer.save(LAST, math.nan)
    last = load_checkpoint(tmp_path / LAST, mapped=False)
    assert last.resume_state is not None
    last.resume_state["plan"] |= {"seconds": 3599.0, "seconds_per_step": 10.0, "seconds_per_evaluation": 100.0}
    trainer = make_trainer(dataset_folder, tmp_path, hours=1.0, log_every=1)
    trainer.resume(last)
    trainer.run()
    assert trainer.step == 4
    assert math.isfinite(trainer.best_loss)
    assert (tmp_path / BEST).is_file()


def test_a_stop_between_log_lines_loses_no_seconds(dataset_folder: Path, tmp_path: Path) -> None:
    flags = ("--log-every", 1000, "--eval-every", 4)
    assert pretrain(dataset_folder, tmp_path, *flags, "--max-steps", 4).returncode == 0
    last = load_checkpoint(tmp_path / LAST)
    assert last.resume_state is not None
    (tmp_path / METRICS).unlink()  # the log is for people: nothing is read from it
    assert pretrain(dataset_folder, tmp_path, *flags, "--max-steps", 5).returncode == 0
    [row] = read_metrics(tmp_path)
    assert row["seconds"] > last.resume_state["seconds"] > 0


def test_tuning_takes_hours_too(base: Path, pairs: Path, tmp_path: Path) -> None:
    result = tune(base, pairs, tmp_path, "--hours", 0.0005)
    assert result.returncode == 0, result.stderr
    assert "0.0005 hours of steps" in result.stdout
    assert "finished in " in result.stdout


def test_hours_that_are_not_above_zero_are_refused(dataset_folder: Path, tmp_path: Path) -> None:
    result = pretrain(dataset_folder, tmp_path, "--hours", 0)
    assert result.returncode == 2
    assert "--hours 0.0: above 0" in result.stderr
