"""Counts the file descriptors that leaves have left open in their process."""

from __future__ import annotations

import fcntl
import os
import resource

_MANY = 1 << 16  # whatever the limit is: the system keeps a table up to the highest number


class Descriptors:
    """Tells when a process should run no further leaf, before leaves fail as they can open nothing.

    Nobody can close what a leaf left open: it may be needed, by a library say, for the next ones.
    """

    def __init__(self) -> None:
        self._any = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MANY if soft == resource.RLIM_INFINITY else min(soft, _MANY)
        self._enough = (self._any + most) // 2

    def run_short(self) -> bool:
        """Return whether half of those that were free at the beginning are open."""
        # New ones get the lowest number that is free; those that were closed leave gaps.
        try:
            number = fcntl.fcntl(self._any, fcntl.F_DUPFD_CLOEXEC, self._enough)
        except OSError:  # there is none left, or a leaf closed everything
            return True
        os.close(number)
        return number > self._enough
