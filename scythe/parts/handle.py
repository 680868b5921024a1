"""A part as the supervisor sees it: its process, what it says, and what it leaves behind."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from scythe.parts.board import Board
from scythe.parts.plan import PartFailed, PartMessage, PartPlan, PartReady, PartStopping
from scythe.processes.ending import GRACE, end_tree
from scythe.processes.semaphores import start_tracker

ORDERLY = "exit code 0"  # as `PartHandle.bury` says it
_REAP = 10.0
PartEntry = Callable[[PartPlan, str, Connection, Board], None]

logger = logging.getLogger("scythe.worker")


class PartHandle:
    """A part that is started, watched, and started again after its death.

    Args:
        plan: What the part serves.
        entry: What runs in its process; a function that another process can import.
        board: What the worker's parts let each other know.

    Attributes:
        plan: What the part serves from its next start on.
        starts: How often it was started.
        tries: How often it died in short succession.
        deaths: How often among these while the engine was there.
        ready: What the running process offers now, once it is ready.
        slots: What it offered when it became ready, as the engine knows it.
        failure: What the process said last before it ended itself.
        running: Leaves that run in it, once it stops.
    """

    def __init__(self, plan: PartPlan, entry: PartEntry, board: Board) -> None:
        self.plan = plan
        self.starts = self.tries = self.deaths = self.slots = 0
        self.ready: PartReady | None = None
        self.failure: PartFailed | None = None
        self.running: int | None = None
        self._entry = entry
        self._board = board
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._mark = ""

    def __str__(self) -> str:
        return f"The {self.plan.role} part ({self.plan.name}, process {self.pid})"

    @property
    def pid(self) -> int:
        """The id of its process; 0 before the first start."""
        return self._process.pid or 0 if self._process is not None else 0

    @property
    def is_up(self) -> bool:
        """Whether it was started, and its end was not dealt with yet."""
        return self._process is not None and self._pipe is not None

    @property
    def waitables(self) -> list[Connection | int]:
        """The objects to wait on (`multiprocessing.connection.wait`): its messages and its end."""
        if self._process is None or self._pipe is None or not self._process.pid:
            return []
        return [self._process.sentinel, self._pipe]

    def start(self) -> None:
        """Start the process; one that cannot be started counts as one that has ended."""
        self.starts += 1
        self.ready = self.failure = self.running = None
        self._mark = f"{uuid.uuid4().hex}."
        context = multiprocessing.get_context("spawn")
        start_tracker()
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=self._entry,
            args=(self.plan, self._mark, theirs, self._board),
            name=f"scythe-{self.plan.role}",
        )
        with theirs, _interrupt_blocked():
            try:
                self._process.start()
            except OSError as error:
                self.failure = PartFailed(
                    f"The process of the {self.plan.role} part cannot be started ({error}): check "
                    "the limits on processes, files and memory."
                )

    def read(self) -> list[PartMessage]:
        """Take in what the process said, and return it."""
        messages: list[PartMessage] = []
        with contextlib.suppress(EOFError, OSError):
            while self._pipe is not None and self._pipe.poll():
                messages.append(self._pipe.recv())
        for message in messages:
            if isinstance(message, PartReady):
                self.slots = self.slots if self.ready else message.slots
                self.ready = message
                self.plan = replace(self.plan, environment=message.environment)
            elif isinstance(message, PartFailed):
                self.failure = message
            elif isinstance(message, PartStopping):
                self.running = message.running
        return messages

    def has_ended(self) -> bool:
        """Return whether the process has ended. It stays a zombie until `bury`."""
        if self._process is None or self._process.pid is None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return not self._process.is_alive()
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, options) is not None
        except ChildProcessError:
            return True

    def ask_to_stop(self) -> None:
        """Ask the process to stop gracefully."""
        if not self.has_ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def bury(self) -> str:
        """End the process, if it still runs, with all that it started; return how it ended."""
        if self._process is None or self._pipe is None or not self._process.pid:
            self._pipe = None
            return "it was not started"
        with contextlib.suppress(OSError):  # it leads no group in its first milliseconds
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._process.kill()
        # What runs leaves is not in the group, and ends by itself when it is given a moment.
        left = end_tree(self.pid, GRACE, mark=self._mark)
        if left:
            logger.error("Processes %s do not end, not even by SIGKILL.", left)
        self._process.join(_REAP)
        self._pipe.close()
        self._pipe = None
        self._board.clear(self.plan.number)
        return _describe_end(self._process.exitcode)


@contextmanager
def _interrupt_blocked() -> Generator[None]:
    """Let a process that is started here begin with SIGINT blocked, which it undoes itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_end(code: int | None) -> str:
    if code is None:
        return "no exit code"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
