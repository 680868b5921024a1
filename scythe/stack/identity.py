"""Recognise a process after its number may have been given to another one."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
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
        """Return whether this very process runs (a zombie does not)."""
        return birth_of(self.pid) == self.birth


def birth_of(pid: int) -> str | None:
    """Return when a live process was born, as a text to compare, or None if there is none."""
    if sys.platform == "linux":
        return _linux_birth(pid)
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            _reap(pid)
            return None
        return f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def _linux_birth(pid: int) -> str | None:
    """Read the start in clock ticks since boot, and the boot: no clock change can move them."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    # A process whose first thread is gone still has its ports and files while others are ending.
    if fields[0] in "ZX" and int(fields[17]) <= 1:
        _reap(pid)
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown"
    return f"{boot}:{fields[19]}"


def _reap(pid: int) -> None:
    # A program that called `up` is the parent of what it started: it has to collect its dead.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
