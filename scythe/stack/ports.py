"""Free ports on the loopback interface."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

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


def _has_seaweed_socket(port: int) -> bool:
    # Its name has the port in it and nothing of the user; somebody else's cannot be replaced.
    return any(Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"))  # noqa: S108 - fixed there


def choose(names: Iterable[str], taken: Iterable[int] = ()) -> dict[str, int]:
    """Choose a free port for each name.

    Args:
        names: What the ports are for.
        taken: Ports not to use.

    Returns:
        A port for each name.

    Raises:
        StackError: There are none.
    """
    used = set(taken)
    chosen: dict[str, int] = {}
    for name in names:
        for _ in range(_TRIES):
            port = secrets.choice(_RANGE)
            if port not in used and is_free(port) and not _has_seaweed_socket(port):
                break
        else:
            raise StackError(
                f"No free port was found between {_RANGE.start} and {_RANGE.stop} on {HOST}."
            )
        used.add(port)
        chosen[name] = port
    return chosen


def answers(port: int, timeout: float = 0.5) -> bool:
    """Return whether something accepts a connection on a loopback port.

    Args:
        port: The port.
        timeout: Seconds to wait for it.
    """
    try:
        with socket.create_connection((HOST, port), timeout):
            return True
    except OSError:
        return False
