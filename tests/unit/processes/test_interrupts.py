"""An interrupt is not lost, wherever it strikes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from scythe.processes.interrupts import KeptInterrupts


@pytest.fixture(autouse=True)
def _own_handlers() -> object:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_inside_a_finalizer_is_raised_at_the_next_check() -> None:
    # In a process of its own: Python prints the exception that it drops.
    code = textwrap.dedent("""
        import signal
        from scythe.processes.interrupts import KeptInterrupts

        class Pool:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with KeptInterrupts() as interrupts:
            pool = Pool()
            del pool
            print("dropped", flush=True)
            interrupts.check()
            print("not reached")
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "dropped\n"
    assert done.returncode == -signal.SIGINT
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_an_interrupt_that_was_not_checked_is_raised_at_the_end() -> None:
    def body() -> None:
        with KeptInterrupts(), contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        body()


def test_the_handlers_are_as_before_afterwards() -> None:
    with pytest.raises(KeyboardInterrupt), KeptInterrupts():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_raises_nothing_ends_nothing() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: seen.append(number))
    with KeptInterrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        interrupts.check()
    assert seen == [signal.SIGINT]


def test_in_another_thread_nothing_is_changed() -> None:
    kept: list[object] = []

    def run() -> None:
        with KeptInterrupts():
            kept.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert kept == [signal.default_int_handler]
