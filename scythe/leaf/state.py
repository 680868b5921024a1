"""Saves and restores process state between leaves."""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports] - without its enums, ten times as quick
import faulthandler
import os
import signal
import threading
import time as clock
from collections.abc import Mapping
from math import inf
from types import SimpleNamespace
from typing import IO, Any

from scythe.leaf.descriptors import Descriptors
from scythe.leaf.settings import ProcessSettings
from scythe.leaf.watch import Watch
from scythe.outcomes import FailureKind, LeafFailure, LeafOutcome

_MOMENT = 0.01  # seconds
_BRIEF = 0.0001
_MANY_THREADS = 64  # that leaves may leave running
_NAMES = 5  # names of changed attributes in one message
DUMP_SIGNAL = signal.SIGUSR2  # makes the process write the stacks of its threads
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_TIMERS = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
# As they are before user code runs.
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
    """Signal handlers, timers, crash reports, settings and open files, as they are now.

    What is not as it was is put back. Where that cannot be done, or user code has replaced what
    other code relies on, the process is damaged: no further leaf may run in it.

    Attributes:
        looks: How often all of it was looked at.
        damage: What was not as it was at the last look, and could not be put back.

    Args:
        crash: Where `faulthandler` writes; emptied for each leaf.
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
        """Take what it is now as what each leaf shall find: the user's code has been imported."""
        # None is a handler that Python did not install and cannot install again.
        self._handlers = [(one, _getsignal(one)) for one in _SIGNALS]
        self._threads = threading.active_count()
        self._settings = ProcessSettings()
        self._watch = Watch()

    @property
    def has_changed(self) -> bool:
        """Whether anything was not as it was at the last look, put back or not."""
        return bool(self.damage) or self._settings.changed or self._had_handlers

    @property
    def is_used_up(self) -> bool:
        """Whether no further leaf should run here, see `left`."""
        return bool(self.left)

    @property
    def left(self) -> list[str]:
        """Reasons, in words, why no further leaf should run in this process."""
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
        """Take note of what came of a leaf: of memory that ran out, much may still be in use."""
        if isinstance(outcome, LeafFailure) and outcome.kind is FailureKind.OUT_OF_MEMORY:
            self._memory_ran_out = True

    def is_due(self, seconds: float) -> bool:
        """Return whether what a leaf of a batch may have changed is to be looked at now.

        It takes as long as a very short leaf: after those, only when that was not done for a
        moment. No process is started in so short a time.

        Args:
            seconds: How long the leaf ran; infinite to look in any case.
        """
        return seconds > _BRIEF or time.monotonic() - self._looked > _MOMENT

    def restore_soon(self, seconds: float = 0.0) -> None:
        """Make it as it was, timers at once and the rest unless that was done a moment ago.

        Args:
            seconds: As in `is_due`.
        """
        self._looked = time.monotonic()
        _set_timer(_REAL, 0)
        if seconds == inf or self._looked - self._restored > _MOMENT:
            self.restore()

    def restore(self) -> None:
        """Make it as it was, and see what cannot be made so."""
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
    """Let forks of the leaf's, such as those of multiprocessing, end by signals as usual.

    The signals wait while a process forks: Python forgets what a new process gets before it has
    told it that it is one, and who ended it in that moment would wait for it for ever.

    Args:
        ours: The handlers that a fork does not keep, unless the leaf has set its own.
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
