"""Hides the main script from child processes that do not need it."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec


class HiddenMain:
    """Hides the user's script from the SDK's child process, which would import it again.

    That process only talks to the engine, and the user's imports would cost seconds and memory. It
    imports this module instead, so that `scythe` is imported before the SDK and speeds that up.
    """

    def __init__(self) -> None:
        self._main: types.ModuleType | None = None

    def hide(self) -> None:
        """Replace the main script's module by an empty one."""
        self._main = sys.modules["__main__"]
        hidden = types.ModuleType("__main__")
        hidden.__spec__ = ModuleSpec(__name__, None)  # a spawned process imports this module
        sys.modules["__main__"] = hidden

    def show(self) -> None:
        """Restore the main script's module."""
        if self._main is not None:
            sys.modules["__main__"] = self._main
