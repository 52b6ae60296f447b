"""Training speed: tokens per second and its share of the device's peak."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throughput:
    """Speed since the last measurement, without the time spent paused."""

    def __init__(self, tokens: int, flops_per_token: float, peak_flops: float | None) -> None:
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._tokens = tokens
        self._start = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count what happens in this context."""
        paused_at = time.monotonic()
        yield
        self._start += time.monotonic() - paused_at

    def measure(self, tokens: int) -> dict[str, float]:
        """Speed since the last call, given the tokens seen so far."""
        now = time.monotonic()
        rate = (tokens - self._tokens) / (now - self._start)
        self._start, self._tokens = now, tokens
        flops = rate * self._flops_per_token
        share = {"share_of_peak": flops / self._peak_flops} if self._peak_flops else {}
        return {"tokens_per_second": rate, "tflops": flops / 1e12, **share}
