"""Amounts in words."""

import numpy as np

from system.amounts import amount


def test_one_of_a_thing_has_no_s() -> None:
    assert [amount(count, "row") for count in (0, 1, 2, 1234, 1.0, 1.5)] == ["0 rows", "1 row", "2 rows", "1,234 rows", "1 row", "1.5 rows"]
    assert amount(np.int64(1_234_567), "row") == "1,234,567 rows"  # type: ignore[arg-type]  # works as an int does
    assert [amount(count, "retry", "retries") for count in (1, 2)] == ["1 retry", "2 retries"]
