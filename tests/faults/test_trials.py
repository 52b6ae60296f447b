"""The count of faults: nothing that went wrong is hidden in the table."""

import pytest

from tests.faults.json_mutants import json_mutants
from tests.faults.mutants import byte_mutants
from tests.faults.trials import Row, Trials, table


def test_every_trial_is_refused_right_or_lost() -> None:
    trials = Trials("flips")
    with trials.one("a"):
        pass
    with trials.one("b") as trial:
        trial.refused = True
    with trials.one("c"):
        int("x")
    with trials.one("d") as trial:
        trial.changed = True
    assert (trials.row.tried, trials.row.refused, trials.row.right, trials.row.changed, trials.row.lost) == (4, 1, 1, 1, 1)
    with pytest.raises(AssertionError, match=r"flips: 1 of 4 went wrong\nc: ValueError: invalid literal"):
        trials.check()


def test_a_campaign_that_tried_nothing_fails() -> None:
    with pytest.raises(AssertionError, match="nothing was tried"):
        Trials("flips").check()


def test_the_table_adds_rows_of_one_kind() -> None:
    rows = [Row("kill", 3, 0, 3, "1 early"), Row("flip", 1000, 900, 59, changed=40), Row("kill", 2, 0, 2)]
    assert table(rows)[2:] == [
        "| flip | 1,000 | 900 | 59 | 40 | 1 |  |",
        "| kill | 5 | 0 | 5 | 0 | 0 | 1 early |",
        "| **all** | 1,005 | 900 | 64 | 40 | 1 |  |",
    ]


def test_no_mutant_is_tried_twice() -> None:
    """A small file has few, and the unchanged one is none of them."""
    for original, mutants in ((b"1", byte_mutants(b"1", {"all": [(0, 1)]}, 1000)), (b"null", json_mutants(None, 50))):
        contents = [each.content for each in mutants]
        assert len(contents) == len({*contents}) >= 50
        assert original not in contents
