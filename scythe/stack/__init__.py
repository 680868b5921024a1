"""The local stack: PostgreSQL, the Hatchet engine and an S3 server on this machine's loopback.

`running()` is what the rest of Scythe asks; it is cheap and starts nothing. All names are loaded on
first use: `make demo` builds the engine while pip still installs what they need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scythe.stack.connection import StackConnection, running
    from scythe.stack.control import reset, stop, up
    from scythe.stack.health import StackStatus, status

__all__ = ["StackConnection", "StackStatus", "reset", "running", "status", "stop", "up"]

_MODULES = {"connection": "StackConnection running", "health": "StackStatus status"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next((key for key, names in _MODULES.items() if name in names.split()), "control")
    return getattr(import_module(f"scythe.stack.{module}"), name)
