"""Saves and restores process state between leaves."""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports] - without its enums, ten times as quick
import faulthandler
import os
import signal
import threading
import time as clock
from collections.abc import Mapping
from types import SimpleNamespace
from typing import IO, Any

from scythe.leaf.descriptors import Descriptors
from scythe.leaf.settings import ProcessSettings
from scythe.leaf.watch import Watch
from scythe.outcomes import FailureKind, LeafFailure, LeafOutcome

_MOMENT = 0.01  # seconds between two checks in a batch
_RESTORE_SECONDS = 0.05  # between two full checks, which take a hundred times as long
_BRIEF = 0.0001  # seconds; a longer leaf is always followed by a check
_MANY_THREADS = 64  # left running, after which the process runs no further leaf
_NAMES = 5  # names of changed attributes in one message
DUMP_SIGNAL = signal.SIGUSR2  # the process writes the stacks of its threads
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_TIMERS = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
# References from before user code runs.
_getsignal: Any = _signal.getsignal  # pyright: ignore[reportUnknownMemberType]
_signal_set = signal.signal
_set_timer = signal.setitimer
_set_mask = signal.pthread_sigmask
_REAL = signal.ITIMER_REAL
_SET = signal.SIG_SETMASK
_truncate = os.ftruncate
time = SimpleNamespace(monotonic=clock.monotonic)
_enable_faults = faulthandler.enable
_fault_on = faulthandler.register
_fault_off = faulthandler.unregister


class ProcessState:
    """A snapshot of signal handlers, timers, crash reports, settings and open files.

    Changes are restored. If that fails, or user code has replaced functions on which other code
    relies, the process is damaged and runs no further leaf.

    Attributes:
        looks: Number of full checks.
        damage: Names of what the last check found changed and could not restore.

    Args:
        crash: The file of `faulthandler`; emptied for each leaf.
    """

    def __init__(self, crash: IO[bytes]) -> None:
        self._crash = crash
        self._crash_number = crash.fileno()
        self._restored = self._looked = float("-inf")
        _fault_on(DUMP_SIGNAL, crash, all_threads=True, chain=False)
        self._mask = _set_mask(signal.SIG_BLOCK, ())
        self._descriptors = Descriptors()
        self._memory_ran_out = self._had_handlers = False
        self.looks = 0
        self.damage = list[str]()
        self.accept()

    def accept(self) -> None:
        """Take a new snapshot, after the user's code was imported."""
        # None stands for a handler that Python did not install and cannot restore.
        self._handlers = [(one, _getsignal(one)) for one in _SIGNALS]
        self._threads = threading.active_count()
        self._settings = ProcessSettings()
        self._watch = Watch()

    @property
    def has_changed(self) -> bool:
        """Whether the last check found a change, restored or not."""
        return bool(self.damage) or self._settings.changed or self._had_handlers

    @property
    def is_used_up(self) -> bool:
        """Whether no further leaf may run here, see `left`."""
        return bool(self.left)

    @property
    def left(self) -> list[str]:
        """The reasons why no further leaf may run in this process, as text."""
        found: list[str] = []
        if self.damage:
            more = f" and {len(self.damage) - _NAMES} more" if len(self.damage) > _NAMES else ""
            found.append(f"another {', '.join(self.damage[:_NAMES])}{more}")
        if self._descriptors.run_short():
            found.append("many files open")
        if threading.active_count() > self._threads + _MANY_THREADS:
            found.append("many threads")
        if self._memory_ran_out:
            found.append("little memory")
        return found

    def note(self, outcome: LeafOutcome) -> None:
        """Record the outcome of a leaf; after a lack of memory, the process is used up."""
        if isinstance(outcome, LeafFailure) and outcome.kind is FailureKind.OUT_OF_MEMORY:
            self._memory_ran_out = True

    def is_due(self, seconds: float) -> bool:
        """Return whether to check the process after a leaf of a batch.

        A check takes as long as a very short leaf, so after such leaves it is done only every
        10 ms. No leaf can start a process in so short a time.

        Args:
            seconds: Run time of the leaf; infinite to force a check.
        """
        return seconds > _BRIEF or time.monotonic() - self._looked > _MOMENT

    def restore_soon(self, seconds: float = 0.0) -> None:
        """Restore timers at once, and the rest if a full check is due.

        A full check is due after a leaf of over 10 ms, and 50 ms after the last one.

        Args:
            seconds: As in `is_due`.
        """
        self._looked = time.monotonic()
        _set_timer(_REAL, 0)
        if seconds > _MOMENT or self._looked - self._restored > _RESTORE_SECONDS:
            self.restore()

    def restore(self) -> None:
        """Restore everything, and record what cannot be restored."""
        _set_timer(_REAL, 0)
        for timer in _TIMERS:
            _set_timer(timer, 0)
        self._had_handlers = False
        for number, handler in self._handlers:
            if handler is not None and _getsignal(number) != handler:
                self._had_handlers = True
                _signal_set(number, handler)
                if number == DUMP_SIGNAL:
                    _fault_off(number)
                    _fault_on(number, self._crash, all_threads=True, chain=False)
        _set_mask(_SET, self._mask)
        self.damage = [*self._settings.restore(), *self._watch.replaced()]
        _enable_faults(self._crash)
        _truncate(self._crash_number, 0)
        self._restored = time.monotonic()
        self.looks += 1


def give_forks_usual_signals(ours: Mapping[signal.Signals, Any]) -> None:
    """Give forks made by a leaf, such as those of multiprocessing, the default signal handlers.

    Signals are blocked during a fork: Python drops a signal that the new process gets before it is
    initialised, so whoever sent it would wait for ever.

    Args:
        ours: Handlers to reset in a fork, unless the leaf has set its own.
    """
    kept = threading.local()

    def before() -> None:
        kept.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ours)

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept.mask)

    def after_in_child() -> None:
        for number, handler in ours.items():
            if signal.getsignal(number) is handler:
                usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, usual)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)
