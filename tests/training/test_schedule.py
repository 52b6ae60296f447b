"""The learning rate: both schedules computed by hand, and what holds for every setting."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import TrainConfig
from training.schedule import describe_longer_schedule, learning_rate
from training.time_plan import UNPLANNED


def rates(config: TrainConfig) -> list[float]:
    """The learning rate of every step, and of the one after the last."""
    return [learning_rate(config, step) for step in range(config.max_steps + 1)]


def test_the_cosine_schedule_equals_values_computed_by_hand() -> None:
    """Four steps of warmup, the peak, two points on the way down, and the floor at the step after the last."""
    got = rates(TrainConfig(lr=1.0, min_lr_share=0.1, warmup_steps=4, max_steps=20, schedule="cosine"))
    assert got[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert got[8] == pytest.approx(0.1 + 0.9 * (0.5 + math.sqrt(0.5) / 2))
    assert got[12] == pytest.approx(0.55)
    assert got[20] == pytest.approx(0.1)


def test_the_wsd_schedule_equals_values_computed_by_hand() -> None:
    got = rates(TrainConfig(lr=1.0, min_lr_share=0.0, warmup_steps=1, max_steps=10, schedule="wsd", cooldown_share=0.4))
    assert got == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.0])


def test_a_warmup_longer_than_the_run_only_rises() -> None:
    got = rates(TrainConfig(lr=1.0, warmup_steps=9, max_steps=5, schedule="cosine"))
    assert got[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


configs = st.builds(
    TrainConfig,
    lr=st.floats(1e-6, 1.0),
    min_lr_share=st.floats(0, 1),
    warmup_steps=st.integers(0, 60),
    max_steps=st.integers(1, 50),
    schedule=st.sampled_from(["cosine", "wsd"]),
    cooldown_share=st.floats(0, 1),
)


@given(configs)
def test_rates_are_positive_and_rise_to_one_peak_and_fall(config: TrainConfig) -> None:
    got = rates(config)
    assert all(0 < rate <= config.lr for rate in got[:-1])
    assert got[-1] >= 0
    peak = got.index(max(got))
    assert all(a <= b for a, b in itertools.pairwise(got[: peak + 1]))
    assert all(a >= b for a, b in itertools.pairwise(got[peak:]))


@given(configs)
def test_rates_do_not_jump(config: TrainConfig) -> None:
    """No change is larger than the steepest slope of the schedule. The first rate is the warmup's, the last is the floor."""
    got = rates(config)
    if config.warmup_steps >= config.max_steps:
        return
    cosine_fall = (config.max_steps - config.warmup_steps) * 2 / math.pi  # steps from top to bottom at its steepest
    fall = config.cooldown_share * config.max_steps if config.schedule == "wsd" else cosine_fall
    steepest = config.lr * max(1 / (config.warmup_steps + 1), 1 / fall if fall else 0)
    assert all(abs(a - b) <= steepest * (1 + 1e-9) for a, b in itertools.pairwise(got))
    assert got[0] <= config.lr / (config.warmup_steps + 1) * (1 + 1e-9)
    if fall:
        assert got[-1] == pytest.approx(config.lr * config.min_lr_share)


def test_a_longer_run_tells_from_which_rate_to_which_it_rises() -> None:
    was = {"max_steps": 10, "lr": 1.0, "min_lr_share": 0.0, "warmup_steps": 1, "schedule": "wsd", "cooldown_share": 0.4}
    config = TrainConfig(**{**was, "max_steps": 20})  # type: ignore[arg-type]  # by name
    told = "the schedule now ends at step 20, no longer at 10: the learning rate "
    assert describe_longer_schedule(config, was, 10) == told + "rises again, from 2.50e-01 to 1.00e+00"
    assert describe_longer_schedule(config, was, 5) == told + "goes on at 1.00e+00"
    older = {name: was[name] for name in ("max_steps", "lr")}  # an earlier version did not have all settings
    assert describe_longer_schedule(config, older, 10) == told + "rises again, from 2.50e-01 to 1.00e+00"
    for steps in (10, 9, UNPLANNED):
        assert describe_longer_schedule(TrainConfig(max_steps=steps), was, 5) == ""
