"""Free ports on the loopback interface."""

from __future__ import annotations

import http.client
import secrets
import socket
from collections.abc import Iterable

from scythe.errors import StackError
from scythe.stack.paths import HOST

# Below the range from which Linux (32768) and macOS (49152) take ports for outgoing connections:
# a port from that range can be in use whenever the stack starts again.
_RANGE = range(20_000, 32_000)
_TRIES = 2_000


def is_free(port: int) -> bool:
    """Return whether a server can listen on a loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do it: a connection of an earlier server that is closing is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose(names: Iterable[str], taken: Iterable[int] = ()) -> dict[str, int]:
    """Choose a free port for each name, none of those that are taken.

    Raises:
        StackError: There are none.
    """
    used = set(taken)
    chosen: dict[str, int] = {}
    for name in names:
        candidates = (secrets.choice(_RANGE) for _ in range(_TRIES))
        port = next((port for port in candidates if port not in used and is_free(port)), None)
        if port is None:
            raise StackError(
                f"No free port was found between {_RANGE.start} and {_RANGE.stop} on {HOST}."
            )
        used.add(port)
        chosen[name] = port
    return chosen


def answers(port: int, timeout: float = 0.5) -> bool:
    """Return whether something accepts a connection on a loopback port."""
    try:
        with socket.create_connection((HOST, port), timeout):
            return True
    except OSError:
        return False


def http_status(port: int, path: str) -> int | None:
    """Return the status with which a loopback port answers GET, None if it does not."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
