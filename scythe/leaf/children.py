"""Finds the child processes that a leaf has left running."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_TRACKER = "multiprocessing.resource_tracker"  # ends with this process and is used by the next leaf


def children_left() -> list[psutil.Process]:
    """Return the child processes that still run, and reap the ended ones."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []  # the usual case, in one system call
    except AttributeError:
        pass  # not supported by this system
    import multiprocessing

    import psutil

    multiprocessing.active_children()  # reaps those that have ended
    left: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
            elif _TRACKER not in " ".join(child.cmdline()):
                left.append(child)
    return left
