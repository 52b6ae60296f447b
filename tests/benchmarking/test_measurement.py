"""Shares and multiples are those of each repeat; tables show medians and ranges."""

from benchmarking.measurement import Measurement, Section
from benchmarking.report import as_table, short

HALF = Measurement("half", "MB/s", (10.0, 30.0, 20.0), (20.0, 60.0, 80.0), (5.0, 10.0, 10.0))


def test_a_share_is_that_of_its_repeat() -> None:
    assert HALF.shares == (0.5, 0.5, 0.25)
    assert HALF.times_yardstick == (2.0, 3.0, 2.0)
    found = HALF.as_json()
    assert found["share"] == {"median": 0.5, "low": 0.25, "high": 0.5, "repeats": [0.5, 0.5, 0.25]}
    assert found["figure"]["median"] == 20.0
    assert Measurement("alone", "MB/s", (1.0,)).as_json().keys() == {"name", "unit", "figure"}


def test_numbers_are_short() -> None:
    numbers = (123456.7, 1234.4, 123.4, 12.34, 1.234, 0.1234, 0.01234, 0.0)
    assert [short(number) for number in numbers] == ["123,457", "1,234", "123", "12.3", "1.23", "0.12", "0.012", "0"]


def test_a_section_is_a_markdown_table() -> None:
    section = Section("train", "Training", [HALF], ["What it means."], {"a": {"x, ms": 1.5}, "b": {"y, ms": 20}})
    assert (
        as_table(section)
        == """### Training

|      |               measured | bound |   of the bound | yardstick | times the yardstick |
|------|-----------------------:|------:|---------------:|----------:|--------------------:|
| half | 20.0 MB/s (10.0..30.0) |  60.0 | 50% (25%..50%) |      10.0 |   2.00 (2.00..3.00) |

|   | x, ms | y, ms |
|---|------:|------:|
| a |  1.50 |       |
| b |       |  20.0 |

What it means.
"""
    )


def test_columns_that_nothing_fills_are_left_out() -> None:
    section = Section("machine", "The machine", [Measurement("copy", "GB/s", (2.0,))])
    assert as_table(section) == "### The machine\n\n|      |  measured |\n|------|----------:|\n| copy | 2.00 GB/s |\n"
