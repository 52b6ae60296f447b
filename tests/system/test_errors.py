"""User errors, and the checks that raise them."""

from dataclasses import dataclass

import pytest

from system.errors import UserError, first_line, require, require_not_negative, require_positive


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("\none\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 5000))) == 200


@dataclass
class Numbers:
    max_steps: float
    seed: float = 0


def test_requirements_name_the_flag_its_value_and_the_limit() -> None:
    require(True, "never shown")
    require_positive(Numbers(1), "max_steps")
    require_not_negative(Numbers(0), "max_steps", "seed")
    for value in (0, -1, float("inf"), float("nan")):
        with pytest.raises(UserError, match=f"--max-steps {value}: a number above 0") as caught:
            require_positive(Numbers(value), "max_steps")
        assert caught.value.exit_code == 2
    with pytest.raises(UserError, match="--seed -1: a number of 0 or more"):
        require_not_negative(Numbers(1, -1), "max_steps", "seed")
