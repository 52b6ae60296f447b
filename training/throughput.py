"""Training speed: tokens per second and its share of the device's peak."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throughput:
    """Speed since the last measurement and time in all, without the time spent paused."""

    def __init__(self, tokens: int, seconds: float, flops_per_token: float, peak_flops: float | None) -> None:
        """`tokens` and `seconds` are those of the run before it was resumed."""
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        self._tokens = tokens
        self._began = time.monotonic() - seconds  # moved by every pause
        self._measured = seconds
        self._paused_at: float | None = None
        self.pauses = 0
        self.seconds_per_pause = 0.0

    @property
    def seconds(self) -> float:
        """Time in all so far; inside a pause, until it began."""
        return (self._paused_at or time.monotonic()) - self._began

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count what happens in this context."""
        self._paused_at = time.monotonic()
        yield
        paused = time.monotonic() - self._paused_at
        self._began += paused
        self._paused_at = None
        self.pauses += 1
        self.seconds_per_pause += (paused - self.seconds_per_pause) / self.pauses

    def measure(self, tokens: int) -> dict[str, float]:
        """Time in all and speed since the last call, given the tokens seen so far."""
        seconds = self.seconds
        rate = (tokens - self._tokens) / (seconds - self._measured)
        self._measured, self._tokens = seconds, tokens
        flops = rate * self._flops_per_token
        share = {"share_of_peak": flops / self._peak_flops} if self._peak_flops else {}
        return {"seconds": seconds, "tokens_per_second": rate, "tflops": flops / 1e12, **share}
