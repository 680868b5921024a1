"""The worker as a process of the demo's: started, awaited, and ended with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

READY_LINE = " is ready."  # the banner begins with it
START_LIMIT = 180.0  # seconds
STOP_LIMIT = 60.0
KILL_LIMIT = 10.0
LOG_TAIL = 20  # lines
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WorkerError(Exception):
    """The worker did not start, or ended on its own."""


class WorkerProcess:
    """Runs `main.py`, at most for as long as a `with` block lasts.

    Args:
        log: The file that takes the worker's output.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._is_over = True
        if self._process is not None:
            with signals_held():  # a second Ctrl-C must not leave half of it running
                _end(self._process)

    def start(self) -> None:
        """Start the worker."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output, signals_held() as came:
            self._process = subprocess.Popen(
                [sys.executable, "-u", str(Path(__file__).parent / "main.py")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Leaves run on a Ray of this worker's own unless the user names a cluster.
                env={"SCYTHE_RAY_ADDRESS": "local", **os.environ},
                # Ctrl-C in the terminal is for the demo, which then ends the worker in good order.
                start_new_session=True,
            )
        if came:
            raise KeyboardInterrupt

    def wait_until_ready(self) -> None:
        """Wait for the worker's banner. From then on its end interrupts the block.

        Raises:
            WorkerError: It did not come in time, or the worker has ended.
        """
        deadline = time.monotonic() + START_LIMIT
        while READY_LINE not in self.output():
            self.check()
            if time.monotonic() > deadline:
                raise WorkerError(self._explain(f"was not ready after {START_LIMIT:g} s"))
            try:
                self._started.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        threading.Thread(target=self._watch, daemon=True).start()

    def check(self) -> None:
        """Raise if the worker has ended.

        Raises:
            WorkerError: It has.
        """
        code = self._started.poll()
        if code is not None:
            raise WorkerError(self._explain(f"ended with exit code {code}"))

    def output(self) -> str:
        """Return what the worker has written so far."""
        return self._log.read_text(errors="replace")

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise WorkerError("The worker is not running: call start() first.")
        return self._process

    def _watch(self) -> None:
        """Interrupt the main thread, which waits for results, when the worker ends on its own."""
        self._started.wait()
        if not self._is_over:
            interrupt_main()

    def _explain(self, what: str) -> str:
        tail = "\n".join(self.output().splitlines()[-LOG_TAIL:])
        return f"The worker {what}. The end of {self._log}:\n{tail}"


@contextmanager
def signals_held() -> Iterator[list[int]]:
    """Keep Ctrl-C and its like from interrupting a block; yields those that came."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _frame: came.append(got))
        for number in STOP_SIGNALS
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Ask the worker to stop; when its time is up, kill it; see all that it started gone."""
    family = _family(worker.pid)
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            print(
                f"The worker did not stop within {STOP_LIMIT:g} s: it is killed.", file=sys.stderr
            )
            family = _family(worker.pid)
    _, left = psutil.wait_procs(family, timeout=KILL_LIMIT)
    for process in left:
        process.kill()
    _, left = psutil.wait_procs(left, timeout=KILL_LIMIT)
    if left:
        raise WorkerError(f"Processes that cannot be ended: {[one.pid for one in left]}")


def _family(pid: int) -> list[psutil.Process]:
    try:
        worker = psutil.Process(pid)
        return [worker, *worker.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
