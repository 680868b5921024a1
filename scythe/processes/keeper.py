"""A parent of a process that runs user code, which ends everything that the process leaves behind.

However a descendant hides (in a new session, with another environment, by a parent that exits at
once), the kernel makes the keeper its parent when the process dies.
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
_ROUNDS = 5  # repetitions, for processes that start while others are being ended


def adopt_orphans() -> None:
    """Become the parent of all orphans below this process."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def get_keeper() -> None:
    """Fork: return in the child, while this process becomes its keeper and exits as the child did.

    Call it before the process has threads.
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
    """Wait for the end of a child, end its orphans, and return the child's status."""
    faulthandler.disable()
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if sys.platform != "linux" else 1 << 20)
    # Signals stay blocked, because a signal to this group is meant for the child.
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
        return []  # the usual case
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
