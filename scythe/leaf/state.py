"""What user code may have changed in its process and the next leaf needs as it was."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from scythe.leaf.descriptors import Descriptors

_MOMENT, _BRIEF = 0.01, 0.0001  # seconds
DUMP_SIGNAL = signal.SIGUSR2  # makes the process write the stacks of its threads
_WATCHED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGCHLD,
)


class ProcessState:
    """Signal handlers, timers, crash reports and open files, as they are now.

    Args:
        crash: Where `faulthandler` writes; emptied for each leaf.
    """

    def __init__(self, crash: IO[bytes]) -> None:
        self._crash = crash
        self._restored = self._looked = float("-inf")
        faulthandler.register(DUMP_SIGNAL, crash, all_threads=True, chain=False)
        handlers = {number: signal.getsignal(number) for number in _WATCHED}
        # None is a handler that Python did not install and cannot install again.
        self._handlers = {name: one for name, one in handlers.items() if one is not None}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._descriptors = Descriptors()

    @property
    def is_used_up(self) -> bool:
        """Whether leaves have left so much open that the next one might be able to open nothing."""
        return self._descriptors.run_short()

    def is_due(self, seconds: float) -> bool:
        """Return whether what a leaf of a batch may have changed is to be looked at now.

        It takes as long as a very short leaf: after those, only when that was not done for a
        moment. No process is started in so short a time.

        Args:
            seconds: How long the leaf ran.
        """
        return seconds > _BRIEF or time.monotonic() - self._looked > _MOMENT

    def restore_soon(self) -> None:
        """Make it as it was, timers at once and the rest unless that was done a moment ago."""
        self._looked = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._looked - self._restored > _MOMENT:
            self.restore()

    def restore(self) -> None:
        """Make it as it was."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)
                if number == DUMP_SIGNAL:
                    faulthandler.unregister(number)
                    faulthandler.register(number, self._crash, all_threads=True, chain=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        faulthandler.enable(self._crash)
        os.ftruncate(self._crash.fileno(), 0)
        self._restored = time.monotonic()


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
