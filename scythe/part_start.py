"""What is different in a part's process while its Hatchet worker starts."""

from __future__ import annotations

import logging
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


class SdkErrors(logging.Handler):
    """Keeps the SDK's errors, which come with tracebacks, for one sentence of our own.

    Attributes:
        last: The last error in words, or None.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: str | None = None

    def install(self) -> None:
        """Take the SDK's log lines from now on."""
        sdk = logging.getLogger("hatchet")
        sdk.addHandler(self)
        sdk.propagate = False

    def remove(self) -> None:
        """Leave the SDK's log lines to the worker's log again."""
        sdk = logging.getLogger("hatchet")
        sdk.removeHandler(self)
        sdk.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error."""
        error = record.exc_info[1] if record.exc_info else None
        details = getattr(error, "details", None)
        reason = details() if callable(details) else error
        said = record.getMessage()
        self.last = f"{said[:1].upper()}{said[1:]}" + (f": {reason}" if reason else "")
