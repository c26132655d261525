"""SIGTERM and SIGINT raise KeyboardInterrupt inside a block, and do what they did before it afterwards."""

from __future__ import annotations

import signal
import threading

import pytest

from shared.cli.signals import SIGNALS, install, interruptible, num_received


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_inside_nested_blocks_and_the_handlers_are_restored(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    received = num_received()
    with interruptible():
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert num_received() == received + 2


def test_handlers_that_a_library_installs_inside_a_block_do_not_outlive_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        signal.signal(signal.SIGTERM, lambda *_: None)
        install()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_changes() -> None:
    entered: list[bool] = []

    def enter() -> None:
        with interruptible():
            install()
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [True]
