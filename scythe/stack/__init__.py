"""The local stack: PostgreSQL, the Hatchet engine and an S3 server on this machine's loopback.

`running()` is what the rest of Scythe asks; it is cheap and starts nothing. All names are loaded on
first use: `make demo` builds the engine while pip still installs what they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scythe.stack.connection import StackConnection, running
    from scythe.stack.control import reset, stop, up
    from scythe.stack.health import StackStatus, status

__all__ = ["StackConnection", "StackStatus", "reset", "running", "status", "stop", "up"]


def __getattr__(name: str) -> Any:
    if name in {"StackConnection", "running"}:
        from scythe.stack import connection as module
    elif name in {"StackStatus", "status"}:
        from scythe.stack import health as module
    elif name in __all__:
        from scythe.stack import control as module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
