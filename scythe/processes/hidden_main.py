"""Hide the main script from processes that do not need it."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec


class HiddenMain:
    """Hides the user's script from the process that the SDK starts, which would import it again.

    That process only talks to the engine; the user's imports would cost it seconds and memory. It
    imports this module instead, so that `scythe` is there before the SDK, which makes that cheaper.
    """

    def __init__(self) -> None:
        self._main: types.ModuleType | None = None

    def hide(self) -> None:
        """Put an empty module in the place of the main script's."""
        self._main = sys.modules["__main__"]
        hidden = types.ModuleType("__main__")
        hidden.__spec__ = ModuleSpec(__name__, None)  # what a spawned process imports in its place
        sys.modules["__main__"] = hidden

    def show(self) -> None:
        """Put the main script's module back."""
        if self._main is not None:
            sys.modules["__main__"] = self._main
