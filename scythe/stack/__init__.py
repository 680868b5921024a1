"""The local stack: PostgreSQL, the Hatchet engine and an S3 server on this machine's loopback.

`running()` is what the rest of Scythe asks; it is cheap and starts nothing. The names that start
and stop things are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scythe.stack.connection import StackConnection, running

if TYPE_CHECKING:
    from scythe.stack.control import reset, stop, up
    from scythe.stack.health import StackStatus, status

__all__ = ["StackConnection", "StackStatus", "reset", "running", "status", "stop", "up"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scythe.stack import control, health

    return getattr(health if name in {"StackStatus", "status"} else control, name)
