"""Identifies a process even after its pid may have been reused.

No change of the clock moves what is compared here: the start in clock ticks since the boot, and the
boot. The time of day at which a process was created, as psutil has it, moves with each step.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessRecord:
    """A process that was started, identified by pid and start time.

    Attributes:
        pid: Its pid.
        birth: Its start time, see `birth_of`.
    """

    pid: int
    birth: str

    def is_alive(self) -> bool:
        """Return whether this process runs. A zombie does not; reaps it if it is a child."""
        if birth_of(self.pid) == self.birth:
            return True
        # A program that called `up` is the parent of what it started: it has to collect its dead.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return False


def birth_of(pid: int) -> str | None:
    """Return the start of a live process, as a text to compare; None if it does not run."""
    if sys.platform == "linux":
        fields = _stat(pid)
        # A process whose first thread is gone still has its ports and files while others end.
        if fields is None or (fields[0] in "ZX" and int(fields[17]) <= 1):
            return None
        return f"{_boot()}:{fields[19]}"
    import psutil

    try:
        process = psutil.Process(pid)
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return None if is_zombie else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def description_of_self() -> str:
    """Return this process as a text from which `has_died` tells whether it has died."""
    return json.dumps([_machine(), os.getpid(), birth_of(os.getpid())])


def has_died(description: str) -> bool:
    """Return whether a process has died; False for one that cannot be seen from here."""
    try:
        machine, pid, birth = json.loads(description)
        return machine == _machine() and birth_of(int(pid)) != birth
    except (TypeError, ValueError):
        return False


def start_of(pid: int) -> float:
    """Return the start of a process, to compare within this machine; 0 if unknown."""
    if sys.platform == "linux":
        fields = _stat(pid)
        return float(fields[19]) if fields is not None else 0.0
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


@cache
def _machine() -> str:
    """Return an id that only processes have in common that see each other's pids."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()} {_boot()} {namespace}"


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
