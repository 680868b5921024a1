"""Free ports on the loopback interface."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Collection, Iterable
from random import SystemRandom

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


def choose(names: Collection[str], taken: Iterable[int] = ()) -> dict[str, int]:
    """Choose a free port for each name, none of those that are taken."""
    candidates = SystemRandom().sample(sorted({*_RANGE} - {*taken}), _TRIES)
    chosen = dict(zip(names, filter(is_free, candidates), strict=False))
    if len(chosen) < len(names):
        where = f"between {_RANGE.start} and {_RANGE.stop} on {HOST}"
        raise StackError(f"No free port was found {where}.")
    return chosen


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


def speaks_http2(port: int) -> bool:
    """Return whether a server answers the opening of HTTP/2, on which gRPC runs, with its own."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty frame of type 4
    try:
        with socket.create_connection((HOST, port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == len(settings) and answer[3] == 4
