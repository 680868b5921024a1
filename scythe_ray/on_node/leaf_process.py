"""The process that runs leaves on a Ray node, as it keeps its own record."""

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
_rmtree = shutil.rmtree  # as it is before user code runs
logger = logging.getLogger("scythe.ray")


class LeafProcess:
    """This process: tells which leaf it runs, and leaves a trace should it crash.

    Attributes:
        leaves: How many leaves it has begun.
        folder: Where the temporary folders of its leaves are made.
        log: Takes what a leaf prints.
        state: What the process is made as after each leaf.
        gpus: What leaves have left of GPUs.

    Args:
        records: The folder of the records.
        temporary: Where `folder` is made; None for the system's usual place.
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
        with contextlib.suppress(OSError):  # Ray gives its workers a lower priority
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        self._is_whole = True
        self.state = ProcessState(self._trace)
        self.state.restore()

    @contextmanager
    def running(self, token: str, *, importing: bool) -> Generator[None]:
        """Run a leaf inside; the processes that it starts carry its mark and end with it.

        Args:
            token: The submission of the leaf.
            importing: Whether its code is to be imported first; `imported` ends that.
        """
        self._scratch.keep()
        entry = self._begin(token, "importing" if importing else "running")
        before = os.environ.get(MARK)
        os.environ[MARK] = entry.mark
        try:
            yield
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - all of the user's is an outcome
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
            # What came of the leaf is known, and stands; the process is not as it was.
            self._is_whole = False
            logger.exception("The process cannot run another leaf")

    def with_log(self, outcome: OutcomeT) -> OutcomeT:
        """Return the outcome with what its leaf printed, unless who ends the process reads that."""
        return outcome if self._asked else self.log.added_to(outcome)

    def give_up(self, error: BaseException) -> NoReturn:
        """End this process, as something failed in it outside of the user's function."""
        if self._asked:
            self._exit(1)
        give_up(self._trace.fileno(), error)

    def between_leaves(self, seconds: float) -> bool:
        """Make the process ready for the next leaf of a batch, unless it is being ended.

        Args:
            seconds: How long the last one ran.

        Returns:
            Whether it should run that.
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
        """Whether it should run no further leaf, see `ProcessState.is_used_up`."""
        return self.leaves > 0 and (not self._is_whole or self.state.is_used_up or self._is_lost)

    @property
    def _is_lost(self) -> bool:
        """Whether nobody would find its leaf: a cleaner has removed the record."""
        return os.fstat(self._record).st_nlink == 0

    def leave(self) -> NoReturn:
        """End this process: the driver has what came of its leaf."""
        self._remove_folder()
        self._exit(0)

    def end_when_idle(self, seconds: float) -> None:
        """End this process, which may hold memory of a GPU, unless a leaf begins in this time."""
        self._idle = threading.Timer(seconds, self._end_if_idle, (self.leaves,))
        self._idle.daemon = True
        self._idle.start()

    @property
    def journal(self) -> Path:
        """The file for the journal of the batch that runs."""
        token = self._entry.token if self._entry else "none"
        return self._records / f"{token}{JOURNAL}"

    def imported(self) -> None:
        """Say that the leaf's code is imported: its time runs from here."""
        self.state.accept()
        if self._entry is not None:
            with locked(self._record):
                now = read_entry(self._record)
                if now is not None and now.state == "importing":
                    self._entry = self._entry.with_state("running")
                    write_entry(self._record, self._entry)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the leaf as Ray does, and let no other begin."""
        self._asked = True
        if callable(self._terminate):
            self._terminate(number, frame)
        sys.exit(1)

    def _end_if_idle(self, leaves: int) -> None:
        with locked(self._record):  # a leaf that comes now has not begun, and is sent again
            if self.leaves == leaves:
                self._remove_folder()
                self._exit(0)

    def _remove_folder(self) -> None:
        """Remove what a leaf has left that could not remove its own temporary folder."""
        with contextlib.suppress(Exception):  # the leaf may have replaced what this calls
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
                self._exit(1)  # who ends this leaf waits for just that
            time.sleep(0.001)
        self._entry = None
        with locked(self._record):  # which this process has: only released here
            write_entry(self._record, entry.with_state("done"))

    def _wait_to_be_ended(self) -> NoReturn:
        """Never return: a task that came back now could meet its own cancellation in the driver."""
        deadline = time.monotonic() + _WAIT_TO_BE_ENDED
        while time.monotonic() < deadline:
            time.sleep(0.1)
        self._exit(1)

    def _end_children(self, mark: str) -> None:
        """End what the leaf left running: its place is free when it is over."""
        left = [child.pid for child in children_left()]
        if left:
            logger.warning("The leaf left processes running, which are ended: %s", left)
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
