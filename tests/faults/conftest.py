"""Each campaign reports its row through pytest, also from another process; at the end they are one table."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tqdm import tqdm

from tests.faults.trials import ROW, Row, Trials, table

# A lock of this process: forks would share tqdm's own, and one that is killed while it holds it would stop all others.
tqdm.set_lock(threading.RLock())


@pytest.fixture
def trials(record_property: Callable[[str, object], None]) -> Iterator[Callable[..., Trials]]:
    """Starts the count of one kind of fault; at the end of the test it must have tried some and lost none."""
    started: list[Trials] = []

    def start(kind: str, note: str = "") -> Trials:
        started.append(Trials(kind, note))
        return started[-1]

    yield start
    for each in started:
        record_property(ROW, tuple(each.row))
    for each in started:
        each.check()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table, in `make faults` only: elsewhere a few trials of each kind are ordinary tests."""
    if config.option.markexpr != "faults":
        return
    reports = [report for found in terminalreporter.stats.values() for report in found if getattr(report, "when", None) == "teardown"]
    rows = [Row(*value) for report in reports for name, value in report.user_properties if name == ROW]
    if rows:
        terminalreporter.section("faults")
        for line in table(rows):
            terminalreporter.write_line(line)
