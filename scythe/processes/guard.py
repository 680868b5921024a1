"""A small process that ends the descendants of another one when that is killed.

A thread cannot do this, because a leaf may be in a C call that holds the interpreter's lock. The
kernel's parent-death signal cannot either, because it does not reach the children of a leaf.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import IO, cast

from scythe.processes.ending import MARK, end_tree, load, users_of
from scythe.processes.spawning import python_command

_GRACE = 0.5
_WAIT = 10.0
_CLEAN = b"done"


class Guard:
    """The guard of the processes with a mark, as their owner sees it.

    Args:
        mark: The beginning of `scythe.processes.ending.MARK` in their environment.
        folder: A folder that is removed with them.
        users: Whether to end also processes that have a file below the folder open.
    """

    def __init__(self, mark: str, folder: str, *, users: bool = False) -> None:
        self._arguments = f"{mark!r}, {folder!r}, users={users}"
        self._process = self._start()

    def ensure(self) -> None:
        """Restart the guard if it has died."""
        if self._is_gone(within=0):
            self._forget()
            self._process = self._start()

    def close(self) -> None:
        """Stop the guard without ending anything else."""
        with contextlib.suppress(OSError):
            self._input.write(_CLEAN)
        self._input.close()
        self._is_gone(within=_WAIT)
        self._forget()

    def _start(self) -> subprocess.Popen[bytes]:
        # A grandchild without the mark, so that ending the owner with its descendants does not end
        # the guard too early. It exits by itself when the owner is gone.
        return subprocess.Popen(
            python_command(
                "import os; os.fork() and os._exit(0); "
                f"from scythe.processes.guard import main; main({self._arguments})"
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != MARK},
            start_new_session=True,  # a signal to the owner's group must not reach the guard
            bufsize=0,
        )

    @property
    def _input(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdin)

    @property
    def _output(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdout)

    def _is_gone(self, within: float) -> bool:
        """Return whether the guard, which never writes, has closed its end of the pipe."""
        poller = select.poll()  # unlike select, poll accepts any descriptor
        poller.register(self._output, select.POLLIN)
        return bool(poller.poll(within * 1000))

    def _forget(self) -> None:
        self._input.close()
        self._output.close()
        self._process.wait()  # the intermediate process, which exited at once


def main(mark: str, folder: str, *, users: bool = False) -> None:
    """Wait for the end of the owner; unless it has closed the guard, end what it left behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    load()  # now, before anything fails
    if sys.stdin.buffer.read() == _CLEAN:
        return
    end_tree(users_of(folder) if users else [], _GRACE, mark=mark)
    shutil.rmtree(folder, ignore_errors=True)
