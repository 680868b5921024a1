"""A worker process as its supervisor sees it: its messages, its end, and its restarts."""

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

from scythe.processes.ending import GRACE, end_tree
from scythe.processes.semaphores import start_tracker
from scythe.worker_processes.process_spec import (
    ProcessFailed,
    ProcessMessage,
    ProcessReady,
    ProcessSpec,
    ProcessStopping,
)
from scythe.worker_processes.shared_state import SharedState

ORDERLY = "exit code 0"  # the text of `ChildProcess.bury` for an orderly end
_REAP = 10.0
ProcessEntry = Callable[[ProcessSpec, str, Connection, SharedState], None]

logger = logging.getLogger("scythe.worker")


class ChildProcess:
    """A worker process that is started, watched, and restarted after its death.

    Args:
        plan: Its work.
        entry: The main function; another process must be able to import it.
        board: Memory shared by all worker processes.

    Attributes:
        plan: The work from the next start on.
        starts: Number of starts.
        tries: Number of deaths in short succession.
        deaths: Number of these deaths that running leaves or an unreachable engine do not explain.
        ready: The present capacity, once the process is ready.
        slots: The slots with which it registered with the engine.
        failure: The reason for which the process ended itself.
        running: Number of leaves that still run while it stops.
    """

    def __init__(self, plan: ProcessSpec, entry: ProcessEntry, board: SharedState) -> None:
        self.plan = plan
        self.starts = self.tries = self.deaths = self.slots = 0
        self.ready: ProcessReady | None = None
        self.failure: ProcessFailed | None = None
        self.running: int | None = None
        self._entry = entry
        self._board = board
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._mark = ""

    def __str__(self) -> str:
        return f"The {self.plan.role} worker process ({self.plan.name}, pid {self.pid})"

    @property
    def pid(self) -> int:
        """The process id; 0 before the first start."""
        return self._process.pid or 0 if self._process is not None else 0

    @property
    def is_up(self) -> bool:
        """Whether it was started and not yet reaped."""
        return self._process is not None and self._pipe is not None

    @property
    def waitables(self) -> list[Connection | int]:
        """The objects to wait on (`multiprocessing.connection.wait`): its messages and its end."""
        if self._process is None or self._pipe is None or not self._process.pid:
            return []
        return [self._process.sentinel, self._pipe]

    def start(self) -> None:
        """Start the process. A failed start counts as a process that has ended."""
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
                self.failure = ProcessFailed(
                    f"The {self.plan.role} worker process cannot be started ({error}). Check the "
                    "limits on processes, files and memory."
                )

    def read(self) -> list[ProcessMessage]:
        """Read the messages of the process, and return them."""
        messages: list[ProcessMessage] = []
        with contextlib.suppress(EOFError, OSError):
            while self._pipe is not None and self._pipe.poll():
                messages.append(self._pipe.recv())
        for message in messages:
            if isinstance(message, ProcessReady):
                self.slots = self.slots if self.ready else message.slots
                self.ready = message
                self.plan = replace(self.plan, environment=message.environment)
            elif isinstance(message, ProcessFailed):
                self.failure = message
            elif isinstance(message, ProcessStopping):
                self.running = message.running
        return messages

    def has_ended(self) -> bool:
        """Return whether the process has ended. It stays a zombie until `bury` reaps it."""
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
        """Kill the process, if it still runs, and its descendants; return how it ended."""
        if self._process is None or self._pipe is None or not self._process.pid:
            self._pipe = None
            return "it was not started"
        with contextlib.suppress(OSError):  # in its first milliseconds it has no process group yet
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._process.kill()
        # Leaf processes are not in the group; they end by themselves within a moment.
        left = end_tree(self.pid, GRACE, mark=self._mark)
        if left:
            logger.error("Processes %s did not end after SIGKILL.", left)
        self._process.join(_REAP)
        self._pipe.close()
        self._pipe = None
        self._board.clear(self.plan.number)
        return _describe_end(self._process.exitcode)


@contextmanager
def _interrupt_blocked() -> Generator[None]:
    """Block SIGINT in a process that is started here, until it unblocks the signal itself."""
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
