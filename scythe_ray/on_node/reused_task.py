"""The process's end of a lease: leaves follow each other into it past Ray. Needs no Ray.

To give a process to a task takes Ray some milliseconds of processor time. While leaves of one kind
keep coming, the task that runs the first of them runs the next ones too: they reach it, and their
outcomes leave it, through a Unix socket of the driver. So this works on the driver's node only;
elsewhere, and wherever the socket does not answer, each leaf is a task of its own.
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

TERM = 1.0  # seconds; then Ray decides again who gets the place
WELCOME = b"\x01"
_SOCKET = "s"
_ANSWER_WAIT = 1.0  # for a driver that is at work
_PATIENCE = 5.0  # for the next leaf; the driver mostly ends it long before
_now = time.monotonic  # as they are before user code runs
_sendall = socket.socket.sendall
_MOST_CHARS = 107  # of a Unix socket's path


@contextmanager
def socket_address(folder: Path) -> Generator[str]:
    """Give the address of the driver's socket, which is in the folder of its records.

    Raises:
        OSError: There is no such folder.
    """
    path = str(folder / _SOCKET)
    if len(os.fsencode(path)) <= _MOST_CHARS:
        yield path
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{number}/{_SOCKET}"  # the same, and short
    finally:
        os.close(number)


class ReusedTaskLoop:
    """Fetches further leaves for a Ray task that has run its first one.

    Args:
        folder: Where the driver's socket is, if it has one on this machine.
        lease: The lease that this task is; None for a process that is not to be used again.
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
        """Give the driver what came of a leaf, unless it is Ray's turn to decide.

        Returns:
            Whether the driver has it. If not, it is to be returned to Ray.
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
        """Wait for the next leaf; return None where there is none for this task."""
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
        except OSError:  # another machine, or the driver is gone
            if link is not None:
                link.close()
        else:
            self._socket = link
            self._stream = link.makefile("rb")
