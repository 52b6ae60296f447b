"""Time is added up right, on a clock that the tests turn."""

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarking.timing import SAMPLE_SECONDS, Phases, Repeated

CPU = torch.device("cpu")


class Hands:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def hands() -> Iterator[Hands]:
    clock = Hands()
    with mock.patch("time.perf_counter", clock):
        yield clock


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), min_size=1))
def test_phases_add_up(phases: list[tuple[str, float]]) -> None:
    clock = Hands()
    with mock.patch("time.perf_counter", clock):
        found = Phases(CPU)
        for name, lasted in phases:
            found.mark(name)
            clock.time += lasted
        seconds = found.take()
        assert found.take() == {}
    assert seconds.keys() == {name for name, _ in phases}
    for name in seconds:
        assert seconds[name] == pytest.approx(sum(lasted for each, lasted in phases if each == name), abs=1e-9)


def test_short_work_is_repeated_and_long_work_is_not(hands: Hands) -> None:
    for lasts, calls in ((SAMPLE_SECONDS / 9.5, 10), (3.0, 1)):
        done = 0

        def work(lasts: float = lasts) -> None:
            nonlocal done
            done += 1
            hands.time += lasts * (5 if done == 1 else 1)  # the first call is slower

        repeated = Repeated(work, CPU)
        done = 1
        assert repeated.seconds() == pytest.approx(lasts)
        assert done == 1 + calls
