"""Start and end the processes of the stack."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scythe.errors import StackError
from scythe.processes.identity import ProcessRecord, birth_of
from scythe.stack.account import Account

_POLL = 0.02  # seconds


@dataclass(frozen=True)
class Launch:
    """What to run, and how.

    Attributes:
        argv: The program and its arguments; no secrets (the list of processes is public).
        env: The whole environment.
        cwd: The working directory.
        log: The file that takes its output.
        account: Who runs it, if not this user.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    account: Account | None = None

    def options(self) -> dict[str, Any]:
        """Return what `subprocess` is to be given."""
        return {
            "args": list(self.argv),
            "env": dict(self.env),
            "cwd": self.cwd,
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,
            "umask": 0o077,
            "user": self.account.uid if self.account else None,
            "group": self.account.gid if self.account else None,
            "extra_groups": [] if self.account else None,
        }


def spawn(launch: Launch) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one, its terminal and the terminal's Ctrl-C.

    Raises:
        StackError: The program cannot be started.
    """
    try:
        with launch.log.open("ab") as log:
            return subprocess.Popen[bytes](stdout=log, stderr=subprocess.STDOUT, **launch.options())
    except OSError as err:
        raise StackError(f"{launch.argv[0]} cannot be started: {err.strerror or err}.") from err


def run(launch: Launch, *, timeout: float, output: bool = False) -> str:
    """Run a helper program to its end.

    Args:
        launch: What to run.
        timeout: Seconds until it is killed.
        output: Return what it prints instead of logging that.

    Raises:
        StackError: It failed or took too long.
    """
    name = " ".join([Path(launch.argv[0]).name, *launch.argv[1:2]])
    try:
        with launch.log.open("ab") as log:
            done = subprocess.run(
                stdout=subprocess.PIPE if output else log,
                stderr=log,
                timeout=timeout,
                check=False,
                **launch.options(),
            )
    except subprocess.TimeoutExpired as err:
        raise StackError(f"`{name}` was not done after {timeout:.0f} s and was ended.") from err
    except OSError as err:
        raise StackError(f"`{name}` cannot be started: {err.strerror or err}.") from err
    if done.returncode:
        raise StackError(f"`{name}` failed: {describe_exit(done.returncode)}.")
    return done.stdout.decode() if output else ""


def describe_exit(code: int) -> str:
    """Say how a process ended, by its return code as `subprocess` gives it."""
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def release(process: subprocess.Popen[bytes]) -> None:
    """Let a started process live on without this one."""
    # Popen warns of a child that still runs when the object goes; here that is the purpose.
    if process.poll() is None:
        process.returncode = 0


def end(record: ProcessRecord, ask: signal.Signals, grace: float) -> bool:
    """End a process and all its children, and see them dead.

    Args:
        record: The process.
        ask: The signal that asks it to end.
        grace: Seconds until it is killed.

    Returns:
        Whether it ended by itself, without SIGKILL.

    Raises:
        StackError: It could not be ended.
    """
    family = [record, *_descendants(record.pid)] if record.is_alive() else []
    if not family:
        return True
    _signal(record, ask)
    willing = _wait_for_end([record], grace)
    _kill(family if willing else [record, *_descendants(record.pid), *family])
    return willing


def end_strays(programs: Mapping[Path, str], grace: float) -> bool:
    """See all processes dead that run a program in its folder, killing them after a while.

    The children of a PostgreSQL server that was killed live on for a moment, and whatever a killed
    `scythe dev` had just started is known to nobody: both are in the way of a new start.

    Args:
        programs: For each working directory the name of the program that works there. A shell, or
            an editor, that somebody has opened in it is left alone.
        grace: Seconds until they are killed.

    Returns:
        Whether there were any.
    """
    import psutil

    names = set(programs.values())
    strays: list[ProcessRecord] = []
    for process in psutil.process_iter():
        try:
            name = process.name()
            if name not in names or programs.get(Path(process.cwd())) != name:
                continue
        except (psutil.Error, OSError):
            continue
        if birth := birth_of(process.pid):
            strays.append(ProcessRecord(process.pid, birth))
    if strays and not _wait_for_end(strays, grace):
        _kill(strays)
    return bool(strays)


def _descendants(pid: int) -> list[ProcessRecord]:
    import psutil

    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    births = {child.pid: birth_of(child.pid) for child in children}
    return [ProcessRecord(number, birth) for number, birth in births.items() if birth]


def _signal(record: ProcessRecord, number: signal.Signals) -> None:
    if not record.is_alive():
        return
    try:
        os.kill(record.pid, number)
    except ProcessLookupError:
        return
    except PermissionError as err:
        raise StackError(
            f"Process {record.pid} belongs to another user. Stop the stack as the user who "
            "started it."
        ) from err


def _kill(family: Sequence[ProcessRecord]) -> None:
    for member in family:
        _signal(member, signal.SIGKILL)
    if not _wait_for_end(family, 10):
        left = ", ".join(str(member.pid) for member in family if member.is_alive())
        raise StackError(f"Process {left} does not end, not even with SIGKILL. Try again later.")


def _wait_for_end(records: Sequence[ProcessRecord], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(record.is_alive() for record in records):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
