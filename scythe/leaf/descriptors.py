"""Counts the file descriptors that leaves have left open in their process."""

from __future__ import annotations

import fcntl
import os
import resource

_MANY = (
    1 << 16
)  # used even if the limit is higher: the kernel's table grows with the highest number


class Descriptors:
    """Detects a process that runs out of file descriptors, before leaves fail because of it.

    What a leaf left open cannot be closed: a library may need it for the next leaf.
    """

    def __init__(self) -> None:
        self._any = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MANY if soft == resource.RLIM_INFINITY else min(soft, _MANY)
        self._enough = (self._any + most) // 2

    def run_short(self) -> bool:
        """Return whether half of the descriptors that were free at first are now open."""
        # A new descriptor gets the lowest free number, so its number bounds the open ones.
        try:
            number = fcntl.fcntl(self._any, fcntl.F_DUPFD_CLOEXEC, self._enough)
        except OSError:  # none is left, or a leaf closed everything
            return True
        os.close(number)
        return number > self._enough
