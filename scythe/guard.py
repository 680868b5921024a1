"""A small process that ends what another one started, should that one be killed.

A thread cannot do this: a leaf may be in a C call that holds the interpreter's lock. Nor can the
kernel's own signal at the death of a parent: it does not reach the processes that a leaf started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys

from scythe.processes import end_tree, load, users_of
from scythe.spawning import python_command

_GRACE = 0.5
_WAIT = 10.0
_CLEAN = b"done"


class Guard:
    """The guard of the processes that carry a mark, as their owner sees it.

    Args:
        mark: What `scythe.processes.MARK` begins with in their environment.
        folder: A folder that is removed with them.
        users: Whether to end the processes that have a file below the folder open, too.
    """

    def __init__(self, mark: str, folder: str, *, users: bool = False) -> None:
        self._arguments = f"{mark!r}, {folder!r}, users={users}"
        self._process = self._start()

    def ensure(self) -> None:
        """Start the guard again should it have died."""
        if self._process.poll() is not None:
            self._discard()
            self._process = self._start()

    def close(self) -> None:
        """End the guard, which then ends nothing."""
        with contextlib.suppress(OSError):
            os.write(self._input, _CLEAN)
        self._discard()

    def _start(self) -> subprocess.Popen[bytes]:
        code = f"from scythe.guard import main; main({self._arguments})"
        return subprocess.Popen(
            python_command(code),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends the owner's group must leave the guard alone
            bufsize=0,
        )

    @property
    def _input(self) -> int:
        return self._process.stdin.fileno() if self._process.stdin else -1

    def _discard(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(_WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(mark: str, folder: str, *, users: bool = False) -> None:
    """Wait for the end of the owner; unless it said goodbye, end what it left behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    load()  # now, while all is well
    if sys.stdin.buffer.read() == _CLEAN:
        return
    end_tree(users_of(folder) if users else [], _GRACE, mark=mark)
    shutil.rmtree(folder, ignore_errors=True)
