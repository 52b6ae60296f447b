"""Signals: the first one is recorded, the second one acts, and the handlers from before come back."""

import signal

import pytest

from system.signals import Interrupt, Stopped, StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_recorded_and_announced(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals("saving") as signals:
        signal.raise_signal(number)
        assert signals.received == number
    assert capfd.readouterr().err == "\nsaving; press Ctrl-C again to stop at once\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_second_ctrl_c_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignals("saving"):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_stopped_run_exits_with_the_code_that_a_shell_expects() -> None:
    assert (Stopped("stopped", signal.SIGINT).exit_code, Stopped("stopped", signal.SIGTERM).exit_code) == (130, 143)


def test_an_interrupt_is_only_recorded_however_often_ctrl_c_is_pressed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert interrupt.pressed
    assert signal.getsignal(signal.SIGINT) == before


def test_without_a_signal_nothing_is_recorded() -> None:
    with StopSignals("saving") as signals, Interrupt() as interrupt:
        pass
    assert signals.received is None
    assert not interrupt.pressed
