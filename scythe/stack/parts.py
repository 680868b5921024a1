"""Start the parts of a stack and see that they answer."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from scythe.errors import StackError
from scythe.processes.identity import ProcessRecord, birth_of
from scythe.stack.account import Account
from scythe.stack.files import open_log, tail
from scythe.stack.paths import Layout
from scythe.stack.process import Launch, describe_exit, release, run, spawn
from scythe.stack.state import PartRecord, Secrets, State, write_state

_POLL = 0.02  # seconds
_PORT_TAKEN = re.compile(r"address already in use|could not (?:bind|listen)", re.IGNORECASE)
_NO_SPACE = os.strerror(errno.ENOSPC).lower()
_LITTLE_SPACE = 2**20  # bytes: too little to say so in a log


class PartFailed(StackError):  # noqa: N818 - reads as what happened
    """A part did not start.

    Attributes:
        part: Its name.
        port_taken: Whether somebody else has a port that it needs.
    """

    def __init__(self, part: str, message: str, *, port_taken: bool = False) -> None:
        self.part = part
        self.port_taken = port_taken
        super().__init__(message)


class StartAborted(StackError):  # noqa: N818 - reads as what happened
    """This part is fine; another one failed, and that error is the one to tell."""


@dataclass
class Running:
    """A part that this process has started; `since` is a time of the monotonic clock."""

    name: str
    process: subprocess.Popen[bytes]
    record: PartRecord
    since: float


class Starter:
    """Starts parts and remembers them at once, so that nothing that runs is ever unknown.

    Several threads may use it.

    Attributes:
        layout: The files of the stack.
        state: What is remembered now.
        keys: The keys of the stack.
        started: What this object has started.
    """

    def __init__(
        self, layout: Layout, state: State, keys: Secrets, report: Callable[[str], None]
    ) -> None:
        self.layout = layout
        self.state = replace(state, keys=keys)
        self.keys = keys
        self.started: list[Running] = []
        self._report = report
        self._lock = threading.RLock()
        self._abort = threading.Event()

    def report(self, line: str) -> None:
        """Pass on a line about the progress; two threads never write at the same time."""
        with self._lock:
            self._report(line)

    def remember(self, **changes: object) -> None:
        """Change fields of the state and write it."""
        with self._lock:
            self.state = replace(self.state, **changes)
            write_state(self.layout, self.state)

    def remember_token(self, token: str, addresses: str) -> None:
        """Keep a client token, and the addresses that it holds."""
        with self._lock:
            self.keys = replace(self.keys, token=token, token_for=addresses)
            self.remember(keys=self.keys)

    def abort(self) -> None:
        """Make every thread that waits for a part give up."""
        self._abort.set()

    def check(self) -> None:
        """Raise `StartAborted` if another part failed."""
        if self._abort.is_set():
            raise StartAborted("The start was given up because another part failed.")

    def helper(
        self,
        part: str,
        argv: list[str],
        *,
        env: dict[str, str],
        cwd: Path,
        timeout: float,
        account: Account | None = None,
        output: bool = False,
    ) -> str:
        """Run a program that prepares a part, to its end; return its output or log it.

        Raises:
            PartFailed: It failed; the message has the end of the log.
        """
        self.check()
        log = self.layout.log(part)
        start = open_log(log)
        try:
            return run(Launch(argv, env, cwd, log, account), timeout=timeout, output=output)
        except StackError as err:
            raise self._failed(part, str(err), start) from err

    def launch(
        self,
        part: str,
        argv: list[str],
        *,
        env: dict[str, str],
        cwd: Path,
        version: str,
        account: Account | None = None,
    ) -> PartRecord:
        """Start a part.

        Raises:
            StackError: It cannot be started.
        """
        log = self.layout.log(part)
        start = open_log(log)
        with self._lock:
            self.check()
            process = spawn(Launch(argv, env, cwd, log, account))
            birth = birth_of(process.pid)
            identity = ProcessRecord(process.pid, birth or "gone")
            record = PartRecord(identity, time.time(), version, start)
            self.started.append(Running(part, process, record, time.monotonic()))
            self.remember(parts=self.state.parts | {part: record}, ready=False)
        return record

    def await_ready(
        self, part: str, record: PartRecord, obstacle: Callable[[], str | None], timeout: float
    ) -> None:
        """Wait until a part answers: until `obstacle` says None, not what is still missing.

        Raises:
            PartFailed: It ended, or does not answer in time.
            StartAborted: Another part failed.
        """
        deadline = time.monotonic() + timeout
        while (missing := obstacle()) is not None:
            if (ending := self._ending(part, record)) is not None:
                raise self._failed(part, ending, record.log_start)
            if time.monotonic() > deadline:
                why = f"it runs, but after {timeout:.0f} s {missing}."
                raise self._failed(part, why, record.log_start)
            self.check()
            self._abort.wait(_POLL)

    def release(self) -> None:
        """Let all that was started live on without this process."""
        for running in self.started:
            release(running.process)

    def _ending(self, part: str, record: PartRecord) -> str | None:
        for running in self.started:
            if running.name == part:
                code = running.process.poll()
                passed = time.monotonic() - running.since
                return None if code is None else f"{describe_exit(code)} after {passed:.1f} s."
        return None if record.process.is_alive() else "it has ended."

    def _failed(self, part: str, why: str, log_start: int) -> PartFailed:
        log = self.layout.log(part)
        end = tail(log, start=log_start, hide=self.keys.all())
        if self._is_disk_full(end):
            why += " Its disk is full: free some space and try again."
        return PartFailed(
            part,
            f"The local stack did not start: {part}: {why}\nThe end of {log}:\n{end or '(empty)'}",
            port_taken=bool(_PORT_TAKEN.search(end)),
        )

    def _is_disk_full(self, end: str) -> bool:
        """Return whether a part says so, or too little space is left to say so in a log."""
        parts = self.state.parts.items()
        logs = [tail(self.layout.log(name), start=one.log_start) for name, one in parts]
        folders = [self.layout.home, self.layout.postgres, self.layout.s3]
        free = min(shutil.disk_usage(folder).free for folder in folders if folder.exists())
        return any(_NO_SPACE in log.lower() for log in [end, *logs]) or free < _LITTLE_SPACE
