"""Start the parts of a stack and see that they answer.

What does not start raises `PartFailed`, with the end of its log.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from scythe.errors import StackError
from scythe.processes.identity import birth_of
from scythe.stack.account import as_account, database_account
from scythe.stack.files import open_log, tail
from scythe.stack.health import obstacle
from scythe.stack.paths import POSTGRES, Layout
from scythe.stack.programs import base_environment
from scythe.stack.state import PartRecord, State, write_state

_POLL_SECONDS = 0.02
_START_LIMIT_SECONDS = 180.0  # PostgreSQL replays its log of changes after a crash
_NO_SPACE = os.strerror(errno.ENOSPC).lower()
_LITTLE_SPACE = 2**20  # bytes: too little to say so in a log


class PartFailed(StackError):  # noqa: N818 - reads as what happened
    """A part did not start."""


class Starter:
    """Starts parts and remembers them at once, so that nothing that runs is ever unknown.

    Attributes:
        layout: The files of the stack.
        state: What is remembered now.
        report: Called with lines about the progress.
        started: The processes that this object has started, by part.
    """

    def __init__(self, layout: Layout, state: State, report: Callable[[str], None]) -> None:
        self.layout = layout
        self.state = state
        self.report = report
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def remember(self, **changes: object) -> None:
        """Change fields of the state and write it."""
        self.state = replace(self.state, **changes)
        write_state(self.layout, self.state)

    def helper(
        self,
        part: str,
        argv: Sequence[str | Path],
        *,
        timeout: float,
        env: dict[str, str] | None = None,
        text: str = "",
    ) -> str:
        """Run a program that prepares a part, to its end, and return its output; log errors."""
        log = self.layout.log(part)
        start = open_log(log)
        name = f"`{Path(argv[0]).name} {argv[1]}`"
        try:
            done = subprocess.run(
                argv,
                input=text.encode(),
                capture_output=True,
                timeout=timeout,
                check=False,
                **self._options(part, env),
            )
        except subprocess.TimeoutExpired:
            why = f"{name} was not done after {timeout:.0f} s and was ended."
        except OSError as err:
            why = f"{name} cannot be started: {err.strerror}."
        else:
            # Only now: on a full disk there may be room again, when it has cleaned up.
            with suppress(OSError), log.open("ab") as output:
                output.write((done.stdout if done.returncode else b"") + done.stderr)
            if not done.returncode:
                return done.stdout.decode()
            why = f"{name} failed: {describe_exit(done.returncode)}."
        raise self._failed(part, why, start)

    def launch(
        self,
        part: str,
        argv: Sequence[str | Path],
        *,
        version: str,
        env: dict[str, str] | None = None,
    ) -> None:
        """Start a part, which outlives this process, its terminal and the terminal's Ctrl-C."""
        self.report(f"starting {part}")
        log = self.layout.log(part)
        start = open_log(log)
        try:
            with log.open("ab") as output:
                process = subprocess.Popen[bytes](
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    **self._options(part, env),
                )
        except OSError as err:
            raise StackError(f"{argv[0]} cannot be started: {err.strerror}.") from err
        self.started[part] = process
        birth = birth_of(process.pid) or "gone"
        record = PartRecord(process.pid, birth, time.time(), version, start)
        self.remember(parts=self.state.parts | {part: record}, ready=False)

    def await_ready(self, part: str, timeout: float = _START_LIMIT_SECONDS) -> None:
        """Wait until a part answers."""
        record = self.state.parts[part]
        process = self.started.get(part)
        deadline = time.monotonic() + timeout
        while missing := obstacle(self.layout, self.state.ports, part):
            why = None
            if process is not None and process.poll() is not None:
                why = f"{describe_exit(process.returncode)}."
            elif process is None and not record.is_alive():
                why = "it has ended."
            elif time.monotonic() > deadline:
                why = f"it runs, but after {timeout:.0f} s {missing}."
            if why:
                raise self._failed(part, why, record.log_start)
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Let all that was started live on without this process."""
        for process in self.started.values():
            # Popen warns of a child that still runs when the object goes; here it shall run.
            if process.poll() is None:
                process.returncode = 0

    def _options(self, part: str, env: dict[str, str] | None) -> dict[str, Any]:
        # No secret is among the arguments: the list of processes is public.
        own = {"start_new_session": True, "umask": 0o077, "cwd": self.layout.folder(part)}
        account = database_account() if part == POSTGRES else None
        return own | {"env": base_environment() | (env or {})} | as_account(account)

    def _failed(self, part: str, why: str, log_start: int) -> PartFailed:
        log = self.layout.log(part)
        end = tail(log, start=log_start, hide=self.state.keys.all())
        if self._is_disk_full(end):
            why += " Its disk is full: free some space and try again."
        return PartFailed(
            f"The local stack did not start: {part}: {why}\nThe end of {log}:\n{end or '(empty)'}"
        )

    def _is_disk_full(self, end: str) -> bool:
        """Return whether a part says so, or too little space is left to say so in a log."""
        parts = self.state.parts.items()
        logs = [tail(self.layout.log(name), start=one.log_start) for name, one in parts]
        folders = [self.layout.home, self.layout.postgres, self.layout.s3]
        free = min(shutil.disk_usage(folder).free for folder in folders if folder.exists())
        return any(_NO_SPACE in log.lower() for log in [end, *logs]) or free < _LITTLE_SPACE


def describe_exit(code: int) -> str:
    """Say how a process ended, by its return code as `subprocess` gives it."""
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
