"""Hide the main script from processes that do not need it."""

from __future__ import annotations

import sys
import types


class HiddenMain:
    """Hides the user's script from the process that the SDK starts, which would import it again.

    That process only talks to the engine; the user's imports would cost it seconds and memory.
    """

    def __init__(self) -> None:
        self._main: types.ModuleType | None = None

    def hide(self) -> None:
        """Put an empty module in the place of the main script's."""
        self._main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")

    def show(self) -> None:
        """Put the main script's module back."""
        if self._main is not None:
            sys.modules["__main__"] = self._main
