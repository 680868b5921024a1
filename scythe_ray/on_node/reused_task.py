"""Task reuse, process side: a Ray task that runs further leaves. Needs no Ray.

Each Ray task costs some milliseconds of processor time. While leaves of one kind keep coming, the
task that ran the first one runs the next ones too. Leaves and outcomes travel over a Unix socket of
the driver, so this works on the driver's Ray node only. On other Ray nodes, and without an answer
from the socket, each leaf is a Ray task.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from scythe.processes.frames import framed, read_frame

TERM = 1.0  # seconds after which Ray schedules again
WELCOME = b"\x01"
_SOCKET = "s"
_ANSWER_WAIT = 1.0  # seconds to wait for a busy driver
_PATIENCE = 5.0  # seconds to wait for the next leaf; the driver usually ends the wait earlier
_now = time.monotonic  # references from before user code runs
_sendall = socket.socket.sendall
_MOST_CHARS = 107  # limit of a Unix socket's path


@contextmanager
def socket_address(folder: Path) -> Generator[str]:
    """Yield the address of the driver's socket, which is in the folder of its records.

    Raises:
        OSError: The folder does not exist.
    """
    path = str(folder / _SOCKET)
    if len(os.fsencode(path)) <= _MOST_CHARS:
        yield path
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{number}/{_SOCKET}"  # the same file under a short path
    finally:
        os.close(number)


class ReusedTaskLoop:
    """Fetches further leaves for a Ray task that has run its first one.

    Args:
        folder: The folder of the driver's socket, if it has one on this machine.
        lease: The name of this task; None if the process must not be used again.
    """

    def __init__(self, folder: Path, lease: str | None) -> None:
        self._begun = _now()
        self._socket: socket.socket | None = None
        self._stream: IO[bytes] | None = None
        self._welcome = False
        if lease is not None:
            self._connect(folder, lease)

    def __enter__(self) -> Self:
        """Keep the socket open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the socket."""
        if self._socket is not None and self._stream is not None:
            self._stream.close()
            self._socket.close()

    def hand_over(self, outcome: bytes) -> bool:
        """Send the outcome of a leaf to the driver, unless the task must end.

        Returns:
            Whether it was sent. If not, return the outcome to Ray.
        """
        if self._socket is None or self._stream is None or _now() - self._begun > TERM:
            return False
        try:
            if not self._welcome:
                self._welcome = self._stream.read(1) == WELCOME
            if self._welcome:
                _sendall(self._socket, framed(outcome))
        except OSError:
            return False
        return self._welcome

    def next_job(self) -> bytes | None:
        """Wait for the next leaf; return None if there is none for this task."""
        if self._socket is None or self._stream is None:
            return None
        self._socket.settimeout(_PATIENCE)
        with contextlib.suppress(OSError):
            return read_frame(self._stream)
        return None

    def _connect(self, folder: Path, lease: str) -> None:
        link = None
        try:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            link.settimeout(_ANSWER_WAIT)
            with socket_address(folder) as address:
                link.connect(address)
            link.sendall(framed(lease.encode()))
        except OSError:  # another host, or the driver is gone
            if link is not None:
                link.close()
        else:
            self._socket = link
            self._stream = link.makefile("rb")
