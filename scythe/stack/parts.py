"""Start the parts of a stack and see that they answer."""

from __future__ import annotations

import re
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
from scythe.stack.state import PartRecord, Secrets, State, write_secrets, write_state

_POLL = 0.05  # seconds
_PORT_TAKEN = re.compile(r"address already in use|could not (?:bind|listen)", re.IGNORECASE)


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
    """A part that this process has started.

    Attributes:
        name: One of `PARTS`.
        process: Its process.
        record: The same, as it is remembered.
        since: When it was started, in seconds of the monotonic clock.
    """

    name: str
    process: subprocess.Popen[bytes]
    record: PartRecord
    since: float


class Starter:
    """Starts parts and remembers them at once, so that nothing that runs is ever unknown.

    Several threads may use it.

    Attributes:
        layout: The files of the stack.
        started: What this object has started.
    """

    def __init__(
        self, layout: Layout, state: State, keys: Secrets, report: Callable[[str], None]
    ) -> None:
        self.layout = layout
        self.started: list[Running] = []
        self._state = state
        self._keys = keys
        self._report = report
        self._lock = threading.RLock()
        self._abort = threading.Event()

    @property
    def state(self) -> State:
        """What is remembered now."""
        return self._state

    @property
    def keys(self) -> Secrets:
        """The keys of the stack."""
        return self._keys

    def report(self, line: str) -> None:
        """Pass on a line about the progress; two threads never write at the same time."""
        with self._lock:
            self._report(line)

    def remember(self, **changes: object) -> None:
        """Change fields of the state and write it.

        Args:
            changes: Fields of `State`.
        """
        with self._lock:
            self._state = replace(self._state, **changes)
            write_state(self.layout, self._state)

    def remember_token(self, token: str, addresses: str) -> None:
        """Keep a new client token.

        Args:
            token: The token.
            addresses: The addresses that it holds.
        """
        with self._lock:
            self._keys = replace(self._keys, token=token, token_for=addresses)
            write_secrets(self.layout, self._keys)

    def abort(self) -> None:
        """Make every thread that waits for a part give up."""
        self._abort.set()

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
        """Run a program that prepares a part, to its end.

        Args:
            part: The part; the program's output goes to its log.
            argv: The program and its arguments.
            env: Its whole environment.
            cwd: Its working directory.
            timeout: Seconds until it is ended.
            account: Who runs it, if not this user.
            output: Return its output instead of logging it.

        Raises:
            PartFailed: It failed; the message has the end of the log.
        """
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
    ) -> Running:
        """Start a part.

        Args:
            part: One of `PARTS`.
            argv: The program and its arguments.
            env: Its whole environment.
            cwd: Its working directory.
            version: What runs there.
            account: Who runs it, if not this user.

        Raises:
            StackError: It cannot be started.
        """
        log = self.layout.log(part)
        start = open_log(log)
        with self._lock:
            if self._abort.is_set():
                raise StartAborted(f"{part} was not started because another part failed.")
            process = spawn(Launch(argv, env, cwd, log, account))
            birth = birth_of(process.pid)
            record = PartRecord(
                ProcessRecord(process.pid, birth or "gone"), time.time(), version, start
            )
            running = Running(part, process, record, time.monotonic())
            self.started.append(running)
            self.remember(parts=self._state.parts | {part: record}, ready=False)
        return running

    def await_ready(
        self, part: str, record: PartRecord, obstacle: Callable[[], str | None], timeout: float
    ) -> None:
        """Wait until a part answers.

        Args:
            part: The part.
            record: Its process.
            obstacle: Returns None once it answers, else what is still missing.
            timeout: Seconds to wait.

        Raises:
            PartFailed: It ended, or does not answer in time.
            StartAborted: Another part failed.
        """
        deadline = time.monotonic() + timeout
        while (missing := obstacle()) is not None:
            if (ending := self._ending(part, record)) is not None:
                raise self._failed(part, ending, record.log_start)
            if time.monotonic() > deadline:
                raise self._failed(
                    part, f"it runs, but after {timeout:.0f} s {missing}.", record.log_start
                )
            if self._abort.wait(_POLL):
                raise StartAborted(f"{part} was given up because another part failed.")

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
        end = tail(log, start=log_start, hide=self._keys.all())
        return PartFailed(
            part,
            f"The local stack did not start: {part}: {why}\nThe end of {log}:\n{end or '(empty)'}",
            port_taken=bool(_PORT_TAKEN.search(end)),
        )
