"""torch.compile: its errors are told from all others, and a machine where it does not work gives the reason."""

import pytest
import torch

from system.compiler import compile_problem, is_compiler_error


def test_an_error_of_a_backend_is_a_compiler_error() -> None:
    def broken_backend(*_: object) -> object:
        raise ValueError("the backend is broken")

    with pytest.raises(RuntimeError) as caught:
        torch.compile(lambda x: x + 1, backend=broken_backend)(torch.ones(8))
    torch.compiler.reset()
    assert is_compiler_error(caught.value)


def test_an_error_of_the_model_is_not_a_compiler_error() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_compiler_error(caught.value)
    assert not is_compiler_error(RuntimeError("torch._dynamo in the message counts for nothing"))


def test_a_compiler_that_does_not_work_gives_the_first_line_of_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda function: fail)
    assert compile_problem(torch.device("cpu")) == "no C++ compiler"


def test_a_compiler_that_works_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    assert compile_problem(torch.device("cpu")) is None
