"""The process that runs leaves on a Ray node, with its record file."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from scythe.leaf.children import children_left
from scythe.leaf.faults import give_up
from scythe.leaf.log import LeafLog, OutcomeT, keep_small
from scythe.leaf.state import ProcessState, give_forks_usual_signals
from scythe.processes.ending import GRACE, MARK, end_tree
from scythe.processes.identity import birth_of
from scythe.processes.keeper import adopt_orphans
from scythe_ray.on_node.gpus import ProcessGpus
from scythe_ray.on_node.records import (
    CANCELLED,
    JOURNAL,
    LOG,
    RECORD,
    TRACE,
    Entry,
    State,
    locked,
    private_folder,
    read_entry,
    try_lock,
    write_entry,
)
from scythe_ray.on_node.scratch import Scratch

EXIT_NOTE = "os._exit"
_WAIT_TO_BE_ENDED = 60.0
_rmtree = shutil.rmtree  # a reference from before user code runs
logger = logging.getLogger("scythe.ray")


class LeafProcess:
    """This leaf process: records the leaf that it runs, and leaves a trace if it crashes.

    Attributes:
        leaves: Number of leaves that it has begun.
        folder: Parent of its leaves' temporary folders.
        log: Captures the output of a leaf.
        state: Process state that is restored after each leaf.
        gpus: The state of the GPUs.

    Args:
        records: The folder of the records.
        temporary: Parent of `folder`; None for the system's usual place.
    """

    def __init__(self, records: Path, temporary: str | None) -> None:
        self.leaves = 0
        self._scratch = Scratch(temporary)
        self.folder = self._scratch.path
        self._records = private_folder(records)
        self._pid = os.getpid()
        self._birth = birth_of(self._pid) or ""
        self._base_mark = os.environ.get(MARK, "ray")
        self._record = self._open(RECORD, os.O_RDWR)
        self._trace = os.fdopen(self._open(TRACE, os.O_WRONLY | os.O_APPEND), "ab", buffering=0)
        self._asked = False
        self._terminate: Any = signal.getsignal(signal.SIGTERM)
        terminate = self._on_terminate
        signal.signal(signal.SIGTERM, terminate)
        give_forks_usual_signals({signal.SIGTERM: terminate})
        self.log = LeafLog(self._path(LOG))
        keep_small(self._records, f"{self._pid}{LOG}")
        self.gpus = ProcessGpus()
        self._entry: Entry | None = None
        self._idle: threading.Timer | None = None
        self._exit: Callable[[int], NoReturn] = os._exit
        os._exit = self._exit_with_note
        adopt_orphans()
        with contextlib.suppress(OSError):  # Ray lowers the priority of its workers
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        self._is_whole = True
        self.state = ProcessState(self._trace)
        self.state.restore()

    @contextmanager
    def running(self, token: str, *, importing: bool) -> Generator[None]:
        """Context in which a leaf runs; its child processes have its mark and end with it.

        Args:
            token: The submission of the leaf.
            importing: Whether its code is imported first, until `imported` is called.
        """
        self._scratch.keep()
        entry = self._begin(token, "importing" if importing else "running")
        before = os.environ.get(MARK)
        os.environ[MARK] = entry.mark
        try:
            yield
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - any exception of user code is an outcome
            self.give_up(error)
        try:
            if before is None:
                os.environ.pop(MARK, None)
            else:
                os.environ[MARK] = before
            self.state.restore()
            self._end_children(entry.mark)
            self._finish()
        except Exception:
            # The outcome of the leaf stands, but the process is damaged.
            self._is_whole = False
            logger.exception("The process cannot run another leaf")

    def with_log(self, outcome: OutcomeT) -> OutcomeT:
        """Return the outcome with the leaf's output, unless the node agent will read that."""
        return outcome if self._asked else self.log.added_to(outcome)

    def give_up(self, error: BaseException) -> NoReturn:
        """Exit this process after a failure outside of the user's function."""
        if self._asked:
            self._exit(1)
        give_up(self._trace.fileno(), error)

    def between_leaves(self, seconds: float) -> bool:
        """Restore the process for the next leaf of a batch, unless it is being ended.

        Args:
            seconds: Run time of the last leaf.

        Returns:
            Whether it may run the next leaf.
        """
        if self._asked:
            self._exit(1)
        if self._entry is None or not self.state.is_due(seconds):
            return True
        self._end_children(self._entry.mark)
        self.state.restore_soon(seconds)
        return not self.state.is_used_up

    @property
    def is_used_up(self) -> bool:
        """Whether it may run no further leaf, see `ProcessState.is_used_up`."""
        return self.leaves > 0 and (not self._is_whole or self.state.is_used_up or self._is_lost)

    @property
    def _is_lost(self) -> bool:
        """Whether its record is gone, so that nobody could find its leaf."""
        return os.fstat(self._record).st_nlink == 0

    def leave(self) -> NoReturn:
        """Exit this process; the driver has the outcome of its leaf."""
        self.remove_folder()
        self._exit(0)

    def end_when_idle(self, seconds: float) -> None:
        """Exit this process, which may hold GPU memory, unless a leaf begins in this time."""
        self._idle = threading.Timer(seconds, self._end_if_idle, (self.leaves,))
        self._idle.daemon = True
        self._idle.start()

    @property
    def journal(self) -> Path:
        """The file for the journal of the running batch."""
        token = self._entry.token if self._entry else "none"
        return self._records / f"{token}{JOURNAL}"

    def imported(self) -> None:
        """Record that the leaf's code is imported; its time limit starts now."""
        self.state.accept()
        if self._entry is not None:
            with locked(self._record):
                now = read_entry(self._record)
                if now is not None and now.state == "importing":
                    self._entry = self._entry.with_state("running")
                    write_entry(self._record, self._entry)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the leaf as Ray does, and accept no other leaf."""
        self._asked = True
        if callable(self._terminate):
            self._terminate(number, frame)
        sys.exit(1)

    def _end_if_idle(self, leaves: int) -> None:
        with locked(self._record):  # a leaf that arrives now has not begun, and is submitted again
            if self.leaves == leaves:
                self.remove_folder()
                self._exit(0)

    def remove_folder(self) -> None:
        """Remove the temporary folder of a leaf that could not do so itself."""
        with contextlib.suppress(Exception):  # the leaf may have replaced the functions called here
            _rmtree(self.folder, ignore_errors=True)

    def _begin(self, token: str, state: State) -> Entry:
        self.leaves += 1
        if self._idle is not None:
            self._idle.cancel()
        entry = Entry(
            token=token,
            pid=self._pid,
            birth=self._birth,
            started=time.monotonic(),
            mark=f"{self._base_mark}/{token}.",
            folder=self.folder,
            state=state,
        )
        with locked(self._record):
            write_entry(self._record, entry)
        self._entry = entry
        if (self._records / f"{token}{CANCELLED}").exists():
            self._wait_to_be_ended()
        return entry

    def _finish(self) -> None:
        entry = self._entry
        if entry is None:
            return
        while not try_lock(self._record):
            now = read_entry(self._record)
            if now is not None and now.token == entry.token and now.state == "ending":
                self._exit(1)  # the process that ends this leaf waits for it
            time.sleep(0.001)
        self._entry = None
        with locked(self._record):  # the lock is held by this process, and released here
            write_entry(self._record, entry.with_state("done"))

    def _wait_to_be_ended(self) -> NoReturn:
        """Never return: a return now could coincide with Ray's cancellation in the driver."""
        deadline = time.monotonic() + _WAIT_TO_BE_ENDED
        while time.monotonic() < deadline:
            time.sleep(0.1)
        self._exit(1)

    def _end_children(self, mark: str) -> None:
        """End the processes that the leaf left running, because its CPUs are free after it."""
        left = [child.pid for child in children_left()]
        if left:
            logger.warning("The leaf left processes running; ending them: %s", left)
            end_tree(left, GRACE, mark=mark)

    def _exit_with_note(self, status: int) -> NoReturn:
        if self._entry is not None and os.getpid() == self._pid:
            frame = inspect.currentframe()
            stack = "".join(traceback.format_stack(frame and frame.f_back))
            self._trace.write(f"{EXIT_NOTE}({status})\n{stack}".encode())
        self._exit(status)

    def _path(self, suffix: str) -> Path:
        return self._records / f"{self._pid}{suffix}"

    def _open(self, suffix: str, flags: int) -> int:
        return os.open(self._path(suffix), flags | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
