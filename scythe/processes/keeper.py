"""A parent for a process that runs user code, which sees the end of all that it has started.

Whatever such a process starts, and however that hides (a session of its own, another environment,
a parent that ends at once), the kernel gives it to the keeper when the process dies.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
from contextlib import suppress

from scythe.processes.ending import GRACE, end_tree

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 5  # of processes that are started while others are being ended


def adopt_orphans() -> None:
    """Become the parent of all that processes below this one leave behind when they end."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def get_keeper() -> None:
    """Return in a child of this process, which stays to be its keeper and then ends as it did.

    Only in a process that has no threads yet.
    """
    everything = signal.valid_signals()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    adopt_orphans()
    child = os.fork()
    if child:
        try:
            _end_as(_keep(child))
        finally:
            os._exit(1)
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _keep(child: int) -> int:
    """Wait for the end of a child, end all that it has left, and return the child's status."""
    faulthandler.disable()
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if sys.platform != "linux" else 1 << 20)
    # Signals stay blocked: who ends the processes of this group means the child.
    while (ended := os.waitpid(-1, 0))[0] != child:
        pass
    for _ in range(_ROUNDS):
        if not (left := _children()):
            break
        end_tree(left, GRACE)
    return ended[1]


def _children() -> list[int]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []  # by far the most usual case
    import psutil

    found: list[int] = []
    for one in psutil.Process().children():
        with suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE:
                found.append(one.pid)
    return found


def _end_as(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), -code)
