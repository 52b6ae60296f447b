"""How long a run will still take."""

import pytest

from training.time_left import MEASURED, TimeLeft, describe_duration


def test_the_first_step_does_not_count_and_evaluations_do() -> None:
    left = TimeLeft(eval_every=20)
    assert left.measure(1, 100, seconds=500.0, per_evaluation=7) is None  # compiling took most of it
    # 80 steps of 2 s; evaluations after this step, after 40, 60 and 80, and at the end.
    assert left.measure(20, 100, seconds=538.0, per_evaluation=7) == 160 + 5 * 7
    assert left.measure(21, 100, seconds=540.0, per_evaluation=7) == 158 + 4 * 7
    assert left.measure(100, 100, seconds=698.0, per_evaluation=7) == 7


def test_without_an_end_no_time_is_told() -> None:
    left = TimeLeft(eval_every=20)
    assert [left.measure(step, None, step, 0) for step in (1, 2, 3)] == [None] * 3
    assert left.measure(4, 10, 4, 0) == 6


def test_it_follows_a_machine_that_slows_down() -> None:
    left, seconds = TimeLeft(eval_every=10**6), 0.0
    for step in range(1, 2 * MEASURED + 1):
        seconds += 1 if step <= MEASURED else 3
        told = left.measure(step, 10**4, seconds, 0)
    assert told == pytest.approx(3 * (10**4 - 2 * MEASURED))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (95, "1 min 35 s"),
        (3599.7, "1 h 0 min"),
        (7800, "2 h 10 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text
