"""Handles Ctrl-C: reports it in one sentence, and keeps exceptions that Python would drop."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class KeptInterrupts:
    """Keeps exceptions of the SIGINT and SIGTERM handlers for the body of a loop.

    Python prints and drops an exception that a handler raises during a finalizer, such as the close
    of a connection pool, so that Ctrl-C would have no effect. `check` raises it again.
    Does nothing outside of the main thread, where no handler runs.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._raised: BaseException | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        if error is None:
            self.check()

    def check(self) -> None:
        """Raise the exception of a handler if it has not ended the loop."""
        if self._raised is not None:
            raise self._raised

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[signal.Signals(number)](number, frame)
        except BaseException as error:
            self._raised = error
            raise


class HeldInterrupt:
    """Delays the first Ctrl-C until the end of the body; a second one interrupts the body.

    Does nothing outside of the main thread, where no handler runs.

    Attributes:
        is_held: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.is_held = False
        self._before: Any = None

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._before = handler
            signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.is_held:
            self._before(number, frame)
        self.is_held = True


class RunInterrupted(KeyboardInterrupt, SystemExit):
    """Ctrl-C was pressed while a run was allocated or awaited. The message has the run's state.

    A program may catch it as `KeyboardInterrupt`. Otherwise the script ends with exit code 130 and
    the message on standard error, without a traceback.
    """

    @property
    def code(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The exit code. Python reads it for an uncaught exit, so print the message here."""
        print(f"\nscythe: {self}", file=sys.stderr, flush=True)  # noqa: T201 - as Python would
        return 130
