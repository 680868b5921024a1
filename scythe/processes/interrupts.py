"""Ctrl-C: an exception that is told in one sentence, and one that Python would drop."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class KeptInterrupts:
    """Remembers what the handlers of SIGINT and SIGTERM raise, for the body of a loop.

    Python prints and forgets an exception that a handler raises while a finalizer runs (a pool of
    connections that is closed, say): Ctrl-C would do nothing. `check` raises it again.
    Outside of the main thread, where no handler runs, this does nothing.
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
        """Raise what a handler raised, if it has not ended the loop."""
        if self._raised is not None:
            raise self._raised

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[signal.Signals(number)](number, frame)
        except BaseException as error:
            self._raised = error
            raise


class HeldInterrupt:
    """Holds back the first Ctrl-C until its body is over; a second one interrupts the body.

    Outside of the main thread, where no handler runs, this does nothing.

    Attributes:
        is_held: Whether there was one.
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
    """Somebody pressed Ctrl-C while a run was allocated or awaited; the message says what of it is.

    A program may catch it as `KeyboardInterrupt`. A script that does not ends with exit code 130
    and the message on standard error, without a traceback.
    """

    @property
    def code(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The exit code. Python reads it when nobody has caught the exit, and says no word then."""
        print(f"\nscythe: {self}", file=sys.stderr, flush=True)  # noqa: T201 - as Python would
        return 130
