"""A way to a server that can hang: connections are taken, and nothing comes back, or not all."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_BLOCK = 1 << 16


class HangingProxy:
    """Forwards to a port of this machine until it is told to hang. Close it by `with`.

    Args:
        port: The server's port.

    Attributes:
        port: The proxy's own port.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._stall_after: int | None = None
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _close(self._server)
        self._accepting.join(60)
        for one in self._open:
            _close(one)
        self._flowing.set()

    @property
    def url(self) -> str:
        """The address of the proxy for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def hang(self) -> None:
        """Take connections and requests, and answer nothing."""
        self._flowing.clear()

    def stall(self, after: int) -> None:
        """Let so many bytes of each answer pass, and no more."""
        self._stall_after = after

    def heal(self) -> None:
        """Forward again, also what was held back."""
        self._stall_after = None
        self._flowing.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._server.accept()
                self._open.append(here)
                there = socket.create_connection(("127.0.0.1", self._target))
                self._open.append(there)
                for ends in ((here, there), (there, here)):
                    is_answer = ends[0] is there
                    threading.Thread(
                        target=self._copy, args=(*ends, is_answer), daemon=True
                    ).start()

    def _copy(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_BLOCK):
                self._flowing.wait()
                if is_answer and self._stall_after is not None:
                    target.sendall(data[: self._stall_after])
                    self._flowing.clear()
                    self._flowing.wait()
                    data = data[self._stall_after :]
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
