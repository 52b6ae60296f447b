"""Each campaign reports its row through pytest, also from another process; at the end they are a table, and a list of what did not run."""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from tqdm import tqdm

from tests.faults.trials import ROW, Row, Trials, table

# A lock of this process: forks would share tqdm's own, and one that is killed while it holds it would stop all others.
tqdm.set_lock(threading.RLock())

ENDED = pytest.StashKey[bool]()  # whether the body of a test came to its end


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    yield
    item.stash[ENDED] = True


@pytest.fixture
def trials(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Callable[..., Trials]]:
    """Starts the count of one kind of fault; at the end of the test it must have tried some and lost none.

    A test that breaks off has lost one: what it did not try must not look tried.
    """
    started: list[Trials] = []

    def start(kind: str, note: str = "") -> Trials:
        started.append(Trials(kind, note))
        return started[-1]

    yield start
    if started and not request.node.stash.get(ENDED, False):
        with started[-1].one("the test"):
            raise RuntimeError("it broke off before its end")
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
    terminalreporter.section("faults")
    for line in [*table(rows), "", *not_in_the_table(terminalreporter.stats)] if rows else not_in_the_table(terminalreporter.stats):
        terminalreporter.write_line(line)


def not_in_the_table(found: Mapping[str, Sequence[Any]]) -> list[str]:
    """The tests that were skipped, with the reason, and those that failed: what they did not try is in no row."""
    lines = []
    for report in found.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        lines.append(f"skipped: {report.nodeid} ({str(reason).removeprefix('Skipped: ')})")
    failed = [report.nodeid for outcome in ("failed", "error") for report in found.get(outcome, [])]
    return lines + [f"failed: {name}" for name in dict.fromkeys(failed)]
