"""Training speed: only the time since the last measurement counts, and pauses do not."""

import time

import pytest

from training.throughput import Throughput


def test_speed_is_measured_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    throughput = Throughput(tokens=1000, seconds=7, flops_per_token=1e9, peak_flops=4e12)
    now += 2
    assert throughput.measure(3000) == {"seconds": 9, "tokens_per_second": 1000, "tflops": 1, "share_of_peak": 0.25}
    with throughput.paused():
        now += 50
        assert throughput.seconds == 9
    now += 1
    assert throughput.measure(5000) == {"seconds": 10, "tokens_per_second": 2000, "tflops": 2, "share_of_peak": 0.5}


def test_without_a_known_peak_no_share_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", iter([0.0, 1.0]).__next__)
    assert Throughput(0, 0, 1e9, None).measure(10) == {"seconds": 1, "tokens_per_second": 10, "tflops": 0.01}
