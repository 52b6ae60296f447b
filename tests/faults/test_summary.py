"""What `make faults` prints at its end: no test that was skipped, failed or broke off is missing there."""

import pytest

pytest_plugins = ["pytester"]

CAMPAIGN = """
import pytest
pytestmark = pytest.mark.faults

def test_whole(trials):
    with trials("flips").one(0):
        pass

def test_broken(trials):
    kills = trials("kills")
    for number in range(2):
        with kills.one(number):
            pass
    raise KeyError("halfway")

def test_before_any(trials):
    raise KeyError("at its beginning")

@pytest.mark.skip(reason="no C compiler")
def test_disks(trials):
    trials("disks")
"""


@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=pytest.mark.faults)])
def test_what_did_not_run_is_named(pytester: pytest.Pytester, processes: int) -> None:
    pytester.makeini("[pytest]\nmarkers = faults")
    pytester.makeconftest("from tests.faults.conftest import *")
    pytester.makepyfile(test_campaign=CAMPAIGN)
    result = pytester.runpytest_inprocess("-m", "faults", "-p", "no:cacheprovider", f"--numprocesses={processes}")
    result.stdout.re_match_lines(
        [
            r"\| flips \| 1 \|.* 0 \|  \|",
            r"\| kills \| 3 \|.* 1 \|  \|",
            r"\| \*\*all\*\* \| 4 \|.* 1 \|  \|",
            r"skipped: test_campaign.py::test_disks \(no C compiler\)",
            r"failed: test_campaign.py::test_broken",
            r"failed: test_campaign.py::test_before_any",
        ]
    )
