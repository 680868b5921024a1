"""The process that runs leaves on a Ray node, as it keeps its own record."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from scythe.processes import MARK
from scythe_ray.record import (
    CANCELLED,
    RECORD,
    TRACE,
    Entry,
    locked,
    private_folder,
    read_entry,
    try_lock,
    write_entry,
)

STACK_SIGNAL = signal.SIGUSR2
EXIT_NOTE = "os._exit"
_WAIT_TO_BE_ENDED = 60.0


class LeafProcess:
    """This process: tells which leaf it runs, and leaves a trace should it crash.

    Attributes:
        leaves: How many leaves it has begun.
    """

    def __init__(self, folder: Path) -> None:
        import psutil

        self.leaves = 0
        self._folder = private_folder(folder)
        self._pid = os.getpid()
        self._birth = psutil.Process().create_time()
        self._base_mark = os.environ.get(MARK, "ray")
        self._record = self._open(RECORD, os.O_RDWR)
        self._trace = self._open(TRACE, os.O_RDWR | os.O_APPEND)
        self._entry: Entry | None = None
        self._exit: Callable[[int], NoReturn] = os._exit
        os._exit = self._exit_with_note

    @contextmanager
    def running(self, token: str, *, last: bool) -> Iterator[None]:
        """Run a leaf inside; the processes that it starts carry its mark.

        Args:
            token: The try of the leaf.
            last: Whether the process ends after it.
        """
        self._begin(token)
        before = os.environ.get(MARK)
        os.environ[MARK] = self._mark(token)
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(MARK, None)
            else:
                os.environ[MARK] = before
            self._finish(last)

    def _begin(self, token: str) -> None:
        self.leaves += 1
        os.ftruncate(self._trace, 0)
        # Anew for each leaf: the last one may have pointed them elsewhere.
        faulthandler.enable(self._trace)
        faulthandler.register(STACK_SIGNAL, self._trace, all_threads=True)
        entry = Entry(token, self._pid, self._birth, time.monotonic(), self._mark(token))
        with locked(self._record):
            write_entry(self._record, entry)
        self._entry = entry
        if (self._folder / f"{token}{CANCELLED}").exists():
            self._wait_to_be_ended()

    def _finish(self, last: bool) -> None:
        entry = self._entry
        while entry and not try_lock(self._record):
            now = read_entry(self._record)
            if now and now.token == entry.token and now.state == "ending":
                self._exit(1)  # who ends this leaf waits for just that
            time.sleep(0.001)
        if entry:
            self._entry = None
            with locked(self._record):
                write_entry(self._record, entry.with_state("done"))
        if last:
            self._path(RECORD).unlink(missing_ok=True)
            self._path(TRACE).unlink(missing_ok=True)

    def _wait_to_be_ended(self) -> NoReturn:
        """Never return: a task that came back now could meet its own cancellation in the driver."""
        deadline = time.monotonic() + _WAIT_TO_BE_ENDED
        while time.monotonic() < deadline:
            time.sleep(0.1)
        self._exit(1)

    def _exit_with_note(self, status: int) -> NoReturn:
        if self._entry is not None and os.getpid() == self._pid:
            stack = "".join(traceback.format_stack(sys._getframe(1)))  # noqa: SLF001 - documented
            os.write(self._trace, f"{EXIT_NOTE}({status})\n{stack}".encode())
        self._exit(status)

    def _mark(self, token: str) -> str:
        return f"{self._base_mark}/{token}"

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._pid}{suffix}"

    def _open(self, suffix: str, flags: int) -> int:
        return os.open(self._path(suffix), flags | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
