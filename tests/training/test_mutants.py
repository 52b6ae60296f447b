"""A damaged metrics.jsonl: it never keeps a run from resuming or from drawing its curve."""

from pathlib import Path

import pytest

from tests.formats.test_damage import LONG, mutants
from training.loss_curve import draw_loss_curve
from training.metrics import METRICS, MetricsLog, read_metrics

QUICK = 100
DRAWN = 25  # of this many mutants, one is drawn, which is slow


@pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
def test_a_run_resumes_with_damaged_metrics(tmp_path: Path, count: int) -> None:
    path = tmp_path / METRICS
    with MetricsLog(tmp_path, resumed_step=0, tensorboard=False) as metrics:
        for step in range(1, 5):
            metrics.add(step, tokens=step * 1000, loss=7.25 / step, learning_rate=3e-4, grad_norm=0.5)
            metrics.add(step, tokens=step * 1000, val_loss=7.5 / step, sample='naïve 日本\n\u2028 "x" \u0001')
    original = path.read_bytes()
    for number, content in enumerate(mutants(original, count)):
        path.write_bytes(content)
        kept = [row["step"] for row in read_metrics(tmp_path) if row["step"] <= 2]
        if number % DRAWN == 0:
            draw_loss_curve(tmp_path)
        with MetricsLog(tmp_path, resumed_step=2, tensorboard=False) as metrics:
            metrics.add(3, loss=1.0)
        assert [row["step"] for row in read_metrics(tmp_path)] == [*kept, 3]
