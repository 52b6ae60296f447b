"""Owns time on any device: moments on its own time line, and the seconds that a piece of work takes."""

import itertools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch

SAMPLE_SECONDS = 0.25  # of work in a sample, at least: shorter ones cannot be told from noise
MOST_CALLS = 1000  # in a sample

Moment = float | torch.cuda.Event


class Clock:
    """The time line of a device. On CUDA a moment is recorded among the kernels, and nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> Moment:
        """The moment when all work that was given to the device so far is done."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's gap
            event.record()
            return event
        if self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def seconds_between(self, moments: list[Moment]) -> list[float]:
        """Seconds from each moment to the next."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return [_seconds(before, after) for before, after in itertools.pairwise(moments)]


def _seconds(before: Moment, after: Moment) -> float:
    if isinstance(before, float) or isinstance(after, float):
        assert isinstance(before, float) and isinstance(after, float)
        return after - before
    milliseconds: float = before.elapsed_time(after)
    return milliseconds / 1000


class Phases:
    """Where time goes: a phase lasts from its mark to the next mark."""

    def __init__(self, device: torch.device) -> None:
        self._clock = Clock(device)
        self._names: list[str] = []
        self._moments: list[Moment] = []

    def mark(self, name: str) -> None:
        """The phase with this name begins."""
        self._names.append(name)
        self._moments.append(self._clock.now())

    def take(self) -> dict[str, float]:
        """Seconds of each phase until now; the next marks begin anew."""
        seconds: dict[str, float] = defaultdict(float)
        for name, lasted in zip(self._names, self._clock.seconds_between([*self._moments, self._clock.now()]), strict=True):
            seconds[name] += lasted
        self._names, self._moments = [], []
        return dict(seconds)


class Repeated:
    """Work to time again and again. What must not be slower than it could be, such as a bound, is recorded as a graph on CUDA, as
    decoding is: launching small kernels costs more than running them."""

    def __init__(self, work: Callable[[], object], device: torch.device, as_graph: bool = False) -> None:
        self._clock = Clock(device)
        self._tensors = work  # a graph does not keep the memory alive that it reads and writes
        self._work = _as_graph(work) if as_graph and device.type == "cuda" else work
        self._calls = 1
        first = self.seconds()
        if first < SAMPLE_SECONDS:  # the first call also fetches memory and starts threads
            self._calls = max(1, min(MOST_CALLS, math.ceil(SAMPLE_SECONDS / min(first, self.seconds()))))

    def seconds(self) -> float:
        """Seconds of one call, the median of as many as a sample takes."""
        moments = [self._clock.now()]
        for _ in range(self._calls):
            self._work()
            moments.append(self._clock.now())
        return statistics.median(self._clock.seconds_between(moments))


def _as_graph(work: Callable[[], object]) -> Callable[[], object]:
    """The work as a CUDA graph; where that fails, as it is."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's gap
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            work()
    except RuntimeError:
        torch.cuda.synchronize()
        return work
    return graph.replay
