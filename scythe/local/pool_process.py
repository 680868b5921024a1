"""One process of the local pool, as the worker sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor as Threads
from pathlib import Path
from typing import Any, TypeVar

from scythe.leaf.journal import read_journal, time_left
from scythe.leaf.log import read_log, show_log
from scythe.leaf.state import DUMP_SIGNAL
from scythe.local.pool_events import Ending, LeafTimeout, ProcessLost, StartFailed
from scythe.local.pool_messages import (
    JOURNAL,
    Finished,
    Inbox,
    NotStarted,
    Ready,
    Setup,
    Started,
    frame_of,
)
from scythe.outcomes import LeafCall, LeafFailure
from scythe.processes.ending import GRACE, MARK, end_tree, open_pidfd
from scythe.processes.spawning import python_command
from scythe.processes.waiting import to_the_end

START_TIMEOUT = 300.0  # seconds to import the user's code, which may be on a slow file system
_EXIT_WAIT = GRACE + 1  # seconds between closing the channel and the end of the process
_REAP_SECONDS = 10.0  # for a keeper to end after SIGKILL on a busy machine
_REAP_POLL_SECONDS = 0.01
_SHORTEST_LOOK = 0.5
_READ = 1 << 18

T = TypeVar("T")
logger = logging.getLogger("scythe.local")


class PoolProcess:
    """A process that runs one leaf after another. It starts at once, before a loop exists.

    Attributes:
        leaves: Number of leaves that it was given.
        leaf_started: Start of the last leaf, in seconds since 1970.
        gone: Whether its channel is broken.
        is_ready: Whether it has been ready for a leaf.
        root: The process that was started: the keeper of the one that runs leaves.
        pid: The process that runs leaves, once it is known.

    Args:
        folder: A private folder, removed with the process.
        mark: Identifies it and its descendants by their environment.
        preparation: The set-up of this process, see `scythe.processes.spawning.preparation`.
        threads: Runs blocking calls.
    """

    def __init__(
        self, folder: Path, mark: str, preparation: dict[str, Any], threads: Threads
    ) -> None:
        self.leaves = 0
        self.leaf_started = 0.0
        self.gone = False
        self.is_ready = False
        self._mark = mark
        self._folder = folder
        self._threads = threads
        self._up = asyncio.Event()
        self._start_failure: LeafFailure | None = None
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._inbox = Inbox()
        self._pidfd: int | None = None
        self._reaped: tuple[int, Any] | None = None
        self._ending: asyncio.Task[Ending] | None = None
        folder.parent.mkdir(0o700, parents=True, exist_ok=True)  # it may have been removed
        folder.mkdir(mode=0o700)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                python_command(
                    f"from scythe.local.leaf_process import main; main({theirs.fileno()})"
                ),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, MARK: mark},
                process_group=0,  # Ctrl-C in a terminal is for the worker
            )
        self.root = self._popen.pid
        self.pid = self.root
        setup = Setup(preparation, str(folder), str(self._crash_file), str(self._log_file))
        with contextlib.suppress(OSError):  # it died already, which is detected below
            self._socket.sendall(frame_of(setup))
        self._socket.setblocking(False)

    @property
    def is_ending(self) -> bool:
        """Whether it is being or has been killed."""
        return self._ending is not None

    def attach(self, on_gone: Callable[[PoolProcess], None]) -> None:
        """Start to listen to the process in the running loop; `on_gone` is called once."""
        self._loop = asyncio.get_running_loop()
        self._on_gone = on_gone
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._socket, self._read)
        self._pidfd = open_pidfd(self.root)
        if self._pidfd is None:
            threading.Thread(target=self._wait_in_thread, daemon=True).start()
        else:
            self._loop.add_reader(self._pidfd, self._on_exit)

    async def ready(self) -> None:
        """Wait until it is ready for a leaf.

        Raises:
            StartFailed: It cannot import the worker's script.
            ProcessLost: It ended before it was ready.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._up.wait()
        except TimeoutError:
            raise StartFailed from None
        if self._start_failure is not None:
            raise StartFailed(self._start_failure)
        if not self.is_ready:
            raise ProcessLost

    async def run(self, call: LeafCall) -> Finished:
        """Run a leaf. After any exception, the process must be ended.

        Raises:
            StartFailed: Importing the leaf's code took too long.
            LeafTimeout: The leaf took too long.
            ProcessLost: The process ended.
        """
        self.leaves += 1
        self.leaf_started = time.time()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._loop.sock_sendall(self._socket, frame_of(call))
                await self._expect(Started)
                self.leaf_started = time.time()
        except TimeoutError:
            raise StartFailed from None
        except OSError:
            raise ProcessLost from None
        limit = call.timeout
        while (finished := await self._finished_within(limit)) is None:
            left = self._time_left() if call.batch else 0.0
            if left <= 0:
                raise LeafTimeout
            # Steps between leaves may take longer than a leaf: check again at the next deadline.
            limit = min(left, max(call.timeout, _SHORTEST_LOOK))
        return finished

    def _time_left(self) -> float:
        """Return the seconds until the deadline of the batch's current step."""
        left = time_left(self._journal_file)
        return self.leaf_started + START_TIMEOUT - time.time() if left is None else left

    async def _finished_within(self, seconds: float) -> Finished | None:
        try:
            async with asyncio.timeout(seconds):
                return await self._expect(Finished)
        except TimeoutError:
            # A result that has arrived counts even if this process was suspended meanwhile, so that
            # the loop noticed the timeout before the data.
            while not self.gone and self._read():
                pass
            late = None if self._messages.empty() else self._messages.get_nowait()
            return late if isinstance(late, Finished) else None

    async def end(self, *, dump: bool = False, swept: bool = False) -> Ending:
        """Kill the process and its descendants. They are dead when this returns or is cancelled.

        Args:
            dump: Whether it writes the stacks of its threads first.
            swept: Whether it and its descendants are dead already.
        """
        if self._ending is None:
            self._ending = self._loop.create_task(self._end(dump, swept))
        return await to_the_end(self._ending)

    async def _end(self, dump: bool, swept: bool) -> Ending:
        if self.gone and not swept:
            # It is exiting by itself; a signal now would hide its exit status.
            await self._exit_within(_EXIT_WAIT)
        elif dump and self.is_ready:
            with contextlib.suppress(OSError):
                os.kill(self.pid, DUMP_SIGNAL)
        if not swept:
            await self._loop.run_in_executor(self._threads, self._sweep)
        await self._exit_within(_EXIT_WAIT)
        self._close()
        return await self._loop.run_in_executor(self._threads, self._ended)

    def _sweep(self) -> None:
        lost = (
            self.gone or sys.platform != "linux"
        )  # its orphans cannot be found through the keeper
        roots = [] if self._reaped else [self.root]
        alive = end_tree(roots, GRACE, mark=self._mark if lost else None)
        if alive:
            logger.error("Processes %s did not end after SIGKILL.", alive)

    def _ended(self) -> Ending:
        """Read the files that the process has left, and remove them."""
        deadline = time.monotonic() + _REAP_SECONDS
        while self._reaped is None and time.monotonic() < deadline:
            try:
                pid, status, usage = os.wait4(self.root, os.WNOHANG)
            except ChildProcessError:  # other code in this process has reaped it
                break
            if pid:
                self._reaped = (status, usage)
            else:
                time.sleep(_REAP_POLL_SECONDS)
        code = None
        peak = 0
        if self._reaped is not None:
            code = os.waitstatus_to_exitcode(self._reaped[0])
            peak = self._reaped[1].ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            self._popen.returncode = code
        stacks = ""
        with contextlib.suppress(OSError):
            stacks = self._crash_file.read_text(errors="replace")
            self._crash_file.unlink()
        journal = read_journal(self._journal_file)
        log = read_log(self._log_file)
        self._log_file.unlink(missing_ok=True)
        show_log(log)
        shutil.rmtree(self._folder, ignore_errors=True)
        return Ending(code, stacks, peak, journal, log)

    def _close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._set_gone()

    async def _exit_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._exited)

    @property
    def _crash_file(self) -> Path:
        return self._folder.with_suffix(".crash")

    @property
    def _journal_file(self) -> Path:
        return self._folder / JOURNAL

    @property
    def _log_file(self) -> Path:
        return self._folder.with_suffix(".log")

    async def _expect(self, kind: type[T]) -> T:
        message = await self._next()
        if not isinstance(message, kind):
            raise ProcessLost  # user code wrote to the channel
        return message

    async def _next(self) -> Any:
        if self.gone and self._messages.empty():
            raise ProcessLost
        message = await self._messages.get()
        if message is None:
            raise ProcessLost
        return message

    def _read(self) -> bool:
        """Read available data; return whether there may be more."""
        try:
            data = self._socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            self._set_gone()
            return False
        try:
            for message in self._inbox.feed(data):
                self._take_in(message)
        except Exception:
            logger.exception("Process %s sent data that is no outcome.", self.pid)
            self._set_gone()
        return True

    def _take_in(self, message: Any) -> None:
        if isinstance(message, Ready | NotStarted):
            if isinstance(message, Ready):
                self.is_ready = True
                self.pid = message.pid
            else:
                self._start_failure = message.failure
            self._up.set()
        else:
            self._messages.put_nowait(message)

    def _on_exit(self, reaped: tuple[int, Any] | None = None) -> None:
        self._reaped = reaped
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        while not self.gone and self._read():
            pass  # read all that it sent before it ended
        if not self._exited.done():
            self._exited.set_result(None)
        self._set_gone()

    def _set_gone(self) -> None:
        if not self.gone:
            self.gone = True
            self._up.set()
            self._messages.put_nowait(None)
            self._on_gone(self)

    def _wait_in_thread(self) -> None:
        _, status, usage = os.wait4(self.root, 0)
        with contextlib.suppress(RuntimeError):  # the loop has closed
            self._loop.call_soon_threadsafe(self._on_exit, (status, usage))
