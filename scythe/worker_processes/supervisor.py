"""Runs the worker processes of a worker until a signal or a call stops them all."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import types
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait

from scythe.worker_processes.child_process import ORDERLY, ChildProcess, ProcessEntry
from scythe.worker_processes.process_group import ProcessGroup, RestartPolicy
from scythe.worker_processes.process_spec import WIND_DOWN, ProcessSpec
from scythe.worker_processes.worker_process import run_worker_process

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TICK = 1.0
_SAME = 0.5  # seconds within which two signals count as one request
_REASSIGN = 30  # seconds after which the engine reassigns the tasks of a silent worker

logger = logging.getLogger("scythe.worker")


class Supervisor:
    """Runs the worker processes of a worker until it is to stop.

    Args:
        plans: The work of each process.
        on_ready: Called once, when all processes are ready for the first time.
        policy: The restart policy.
        entry: The main function of a process.

    Attributes:
        forced_by: The signal that killed the processes at once, or None.
    """

    def __init__(
        self,
        plans: Sequence[ProcessSpec],
        on_ready: Callable[[Sequence[ChildProcess]], None],
        policy: RestartPolicy | None = None,
        entry: ProcessEntry = run_worker_process,
    ) -> None:
        self.forced_by: int | None = None
        self._children = ProcessGroup(plans, on_ready, policy or RestartPolicy(), entry)
        self._grace = max((plan.shutdown_timeout for plan in plans), default=0.0)
        self._requests: list[int] = []
        self._last_signal = float("-inf")
        self._pipe_lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def run(self) -> None:
        """Start the processes and serve until a stop is requested. Leaves no process behind.

        Raises:
            WorkerStartError: A process cannot be started, or died too often.
        """
        with self._signals_taken():
            try:
                self._serve()
            finally:
                self._stop_parts()

    def stop(self) -> None:
        """Request a graceful stop; a second call stops at once. Any thread may call it."""
        with self._pipe_lock, contextlib.suppress(OSError):
            if self._wake_write >= 0:
                os.write(self._wake_write, bytes([0]))

    def close(self) -> None:
        """Release the supervisor's resources; it accepts no more requests."""
        with self._pipe_lock:
            if self._wake_write >= 0:
                os.close(self._wake_read)
                os.close(self._wake_write)
                self._wake_write = -1

    def _serve(self) -> None:
        while not self._requests:
            self._children.tend()
            self._wait(self._children.next_event() - time.monotonic())

    @contextmanager
    def _signals_taken(self) -> Generator[None]:
        """Handle SIGTERM and SIGINT, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Signals that nohup or a shell's `&` have set to be ignored stay ignored.
        wanted = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
        # The numbers reach the pipe at once, whichever thread the kernel chose.
        wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        before = {number: signal.signal(number, _pass_over) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(wakeup)

    def _wait(self, timeout: float) -> None:
        """Wait for a message, a death, a signal, or the timeout."""
        wait([self._wake_read, *self._children.waitables], min(max(timeout, 0.0), _TICK))
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wake_read, 64):
                if number in (0, *_SIGNALS):  # other signals belong to the user's code
                    self._take_request(number)

    def _take_request(self, number: int) -> None:
        now = time.monotonic()
        # A wrapper such as `uv run` may forward a signal that the terminal has also sent here.
        repeated = number and now < self._last_signal + _SAME
        if not repeated:
            self._requests.append(number)
        if number:
            self._last_signal = now

    def _stop_parts(self) -> None:
        """Stop all processes gracefully; kill them at the timeout or on a second request."""
        children = [child for child in self._children.everyone if child.is_up]
        if children and self._children.announced:
            logger.info(
                "Stopping; running leaves may continue for %g s. Ask again to stop at once.",
                self._grace,
            )
        for child in children:
            child.read()
            if child.ready:
                child.ask_to_stop()
            else:
                child.bury()  # no leaf runs in it yet
        started = time.monotonic()
        children = [child for child in children if child.is_up]
        while children and len(self._requests) < 2:
            children = [child for child in children if not self._has_stopped(child, started)]
            if children:
                self._wait(_TICK)
        if children:
            self.forced_by = self._requests[-1] or None
        for child in children:
            self._end(child, "it was asked to stop at once")

    def _has_stopped(self, child: ChildProcess, started: float) -> bool:
        """Return whether a process has ended; kill it when its time is up."""
        before = child.running
        child.read()
        if child.running and child.running != before:
            logger.info("%s waits for %s.", child, _leaves(child.running))
        if child.has_ended():
            who = str(child)
            how = child.bury()
            if how != ORDERLY:  # it may not have cleaned up
                logger.warning("%s ended abnormally while stopping (%s).", who, how)
            return True
        grace = self._grace + (0 if child.running else WIND_DOWN)
        if time.monotonic() > started + grace:
            self._end(child, f"it had not stopped after {grace:g} s")
            return True
        return False

    def _end(self, child: ChildProcess, why: str) -> None:
        who = str(child)
        child.bury()
        lost = (
            f" with {_leaves(child.running)}, which Hatchet gives to another worker in about "
            f"{_REASSIGN} s"
            if child.running
            else ""
        )
        logger.warning("%s was killed (%s)%s.", who, why, lost)


def _pass_over(_number: int, _frame: types.FrameType | None) -> None:
    pass


def _leaves(count: int) -> str:
    return f"{count} running {'leaf' if count == 1 else 'leaves'}"
