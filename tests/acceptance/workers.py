"""Workers as subprocesses, with all that they start in sight."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.running import APPS, wait_until

TAG = "SCYTHE_TEST_WORKER"


class WorkerProcess:
    """A worker, from the command that starts it to the last process of its family.

    Args:
        app: Folder of the app.
        command: What follows the program.
        log: Takes what it prints.
        program: What is run; the interpreter by default.
        variables: Its further environment.
    """

    def __init__(
        self,
        app: str,
        *command: str,
        log: Path,
        program: str = sys.executable,
        **variables: str,
    ) -> None:
        self.log = log
        self.tag = uuid.uuid4().hex
        self.began = time.time()
        bare = {k: v for k, v in os.environ.items() if not k.startswith("SCYTHE_WORKER_")}
        with log.open("wb") as output, _interruptible():
            self.popen = subprocess.Popen(
                [program, *command],
                cwd=APPS / app,
                env={**bare, TAG: self.tag, "SCYTHE_RAY_ADDRESS": "local", **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it leads a group, as in a terminal
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_ready(self, seconds: float = 90) -> None:
        wait_until(
            lambda: " is ready." in self.text or self.popen.poll() is not None,
            f"the worker is ready:\n{self.text}",
            seconds,
        )
        assert self.popen.poll() is None, self.text

    def wait_for_line(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Wait for a line of the log."""
        wait_until(lambda: re.search(pattern, self.text), pattern, seconds)
        found = re.search(pattern, self.text)
        assert found
        return found

    def part(self, role: str) -> int:
        """Return the id of the process of a part, as the log last named it."""
        lines = re.findall(rf"processes .*\b{role} (\d+)", self.text)
        lines += re.findall(
            rf"The {role} worker process \([^)]*, pid (\d+)\) is ready again", self.text
        )
        return int(lines[-1])

    def family(self) -> list[psutil.Process]:
        """Return all living processes that this worker, or one of its children, started."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get(TAG) == self.tag
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_gone(self, seconds: float = 20) -> None:
        """Wait until nothing of it is left."""
        deadline = time.monotonic() + seconds
        while left := self.family():
            assert time.monotonic() < deadline, f"left over: {[one.cmdline() for one in left]}"
            time.sleep(0.1)

    def wait_end(self, seconds: float = 60) -> int:
        """Wait until it has ended and nothing of it is left; return its exit code."""
        code = self.popen.wait(seconds)
        self.wait_gone(1)
        return code

    def stop(self) -> None:
        """Stop it as a service manager does."""
        self.popen.send_signal(signal.SIGTERM)
        assert self.wait_end() == 0, self.text

    def rows(self) -> list[Any]:
        """Return what the engine knows of its Hatchet workers, that of the leaves first."""
        from scythe.engine.client import client

        names = re.findall(r"(\S+) is ready\.", self.text)[:1]
        rows = client().workers.list().rows or []
        mine = [
            row
            for row in rows
            if (row.name == names[0] or row.name.startswith(f"{names[0]}--"))
            and row.metadata.created_at.timestamp() > self.began
        ]
        return sorted(mine, key=lambda row: row.name)


@contextmanager
def _interruptible() -> Generator[None]:
    """Tests that run in the background ignore Ctrl-C; what they start should not inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def running(app: str, *command: str, log: Path, **options: str) -> Generator[WorkerProcess]:
    """Run a worker until the test is over; the test may end it itself."""
    worker = WorkerProcess(app, *command, log=log, **options)
    try:
        yield worker
    except BaseException:
        print(worker.text)
        raise
    finally:
        if worker.popen.poll() is None:
            worker.popen.send_signal(signal.SIGTERM)
            try:
                worker.popen.wait(60)
            finally:
                for process in worker.family():
                    process.kill()
        worker.popen.wait(10)


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Wait for a condition, with a deadline."""
    wait_until(lambda: bool(condition()), what, seconds)
