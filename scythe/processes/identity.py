"""Recognise a process after its number may have been given to another one.

No change of the clock moves what is compared here: the start in clock ticks since the boot, and the
boot. The time of day at which a process was created, as psutil has it, moves with each step.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessRecord:
    """A process that was started, recognisable after its number has been given to another.

    Attributes:
        pid: Its number.
        birth: When it was born, exact; only one process has both.
    """

    pid: int
    birth: str

    def is_alive(self) -> bool:
        """Return whether this very process runs (a zombie does not; one of ours is reaped)."""
        if birth_of(self.pid) == self.birth:
            return True
        # A program that called `up` is the parent of what it started: it has to collect its dead.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return False


def birth_of(pid: int) -> str | None:
    """Return when a live process was born, as a text to compare, or None if there is none."""
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


def start_of(pid: int) -> float:
    """Return when a process was started, to compare with others of this machine; 0 if unknown."""
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
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
