"""An interrupt raises once, at the end of an uninterruptible step, and never during the cleanup."""

from __future__ import annotations

import os
import signal

import pytest

from paraglider.lab.interrupts import SIGNALS, Interrupts


def send(number: signal.Signals = signal.SIGINT) -> None:
    """Send this process a signal, handled before the next line."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_raises_and_the_second_does_not(number: signal.Signals) -> None:
    """A further interrupt during the cleanup has no effect."""
    with Interrupts():
        with pytest.raises(KeyboardInterrupt):
            send(number)
        send(number)


def test_a_deferred_signal_raises_at_the_end_of_the_block() -> None:
    """A step that must not be torn runs to its end first."""
    reached = False

    def step(interrupts: Interrupts) -> None:
        nonlocal reached
        with interrupts.deferred():
            send()
            reached = True

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        step(interrupts)
    assert reached


def test_a_step_that_fails_for_the_interrupt_was_interrupted() -> None:
    """A program killed by the same Ctrl-C is no error; another failure is reported, also during the
    cleanup.
    """

    def step(interrupts: Interrupts, *, interrupted: bool) -> None:
        with interrupts.deferred():
            if interrupted:
                send()
            raise ValueError("exit -2")

    with Interrupts() as interrupts:
        with pytest.raises(ValueError, match="exit -2"):
            step(interrupts, interrupted=False)
        with pytest.raises(KeyboardInterrupt):
            step(interrupts, interrupted=True)
        with pytest.raises(ValueError, match="exit -2"):
            step(interrupts, interrupted=True)


def test_nothing_is_raised_once_ignored() -> None:
    """After ``ignore`` signals change nothing."""
    with Interrupts() as interrupts:
        interrupts.ignore()
        send()


def test_the_handlers_of_before_come_back() -> None:
    """After the block Ctrl-C has its former effect."""
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
