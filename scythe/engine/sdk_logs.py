"""Filters the log of the Hatchet SDK: each new event is one readable line.

The SDK writes four lines for each leaf, and tracebacks all the time while the engine is away.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from scythe.engine.leaf_counts import serve_counts, shared_counts
from scythe.environment import refused_token
from scythe.messages import FAILURE_MARK
from scythe.processes import logs as worker_logs

_SDK = "hatchet"
_REPEAT = 30.0  # seconds for which the same trouble is not said again
_NO_NEWS = ("interrupted read_with_interrupt task",)  # said each time it stops
_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_BACK = "action listener established"
RENEWED = signal.SIGURG  # to the parent of the SDK's process, which does nothing by itself


class SdkLogger(logging.Logger):
    """The logger that the SDK is given, which its processes get too.

    So it quiets them, and tells them the counts that are served with the SDK's metrics.
    """

    def __reduce__(self) -> tuple[Callable[[str | None, Any], logging.Logger], tuple[Any, Any]]:
        return _logger_of_sdk_process, (worker_logs.label(), shared_counts())


def _logger_of_sdk_process(label: str | None, counts: Any) -> logging.Logger:
    if counts is not None:
        serve_counts(counts)
    return quiet_logger(label)


def quiet_logger(label: str | None = None) -> logging.Logger:
    """Return the logger for the SDK, whose lines go to the logger `scythe` from now on.

    Args:
        label: What the lines are marked with in a process that the SDK started.
    """
    sdk = logging.getLogger(_SDK)
    sdk.setLevel(logging.WARNING)
    if label is not None:
        worker_logs.configure(label)
        sdk.setLevel(logging.INFO)  # for the one line that tells that the engine is back
    sdk.handlers.clear()  # the SDK's own writes to standard output
    sdk.filters[:] = [SdkFilter(tell=label is not None)]
    sdk.parent = logging.getLogger("scythe")
    sdk.propagate = True
    logger = SdkLogger("scythe.hatchet", logging.WARNING)
    logger.parent = logging.getLogger("scythe")
    return logger


class SdkFilter(logging.Filter):
    """Passes what is news, without tracebacks.

    Args:
        tell: Whether the parent process is told, by `RENEWED`, when the engine is back.
    """

    def __init__(self, *, tell: bool = False) -> None:
        super().__init__()
        self._tell = tell
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written; it may be made shorter."""
        message = record.getMessage()
        if record.levelno < logging.WARNING:
            if message != _BACK:
                return False
            self._said.clear()
            if self._tell:
                os.kill(os.getppid(), RENEWED)
            record.msg = "Connected to Hatchet again."
            record.args = ()
            return True
        if message.startswith(_NO_NEWS) or self._is_repeated(record):
            return False
        record.msg = sentence(record)
        record.args = ()
        record.exc_info = None
        return True

    def _is_repeated(self, record: logging.LogRecord) -> bool:
        place = (record.pathname, record.lineno)
        now = time.monotonic()
        if now < self._said.get(place, float("-inf")) + _REPEAT:
            return True
        self._said[place] = now
        return False


class SdkErrors(logging.Handler):
    """Keeps the SDK's errors while a worker starts, for one sentence of our own.

    Attributes:
        last: The last error in words, or None.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: str | None = None

    def install(self) -> None:
        """Take the SDK's log lines from now on."""
        sdk = logging.getLogger(_SDK)
        sdk.addHandler(self)
        sdk.propagate = False

    def remove(self) -> None:
        """Leave the SDK's log lines to the worker's log again."""
        sdk = logging.getLogger(_SDK)
        sdk.removeHandler(self)
        sdk.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error."""
        self.last = record.getMessage()


def is_refusal(error: BaseException | None) -> bool:
    """Return whether the engine refused the token: in gRPC, or in its REST API."""
    code = getattr(error, "code", None)
    name = getattr(code(), "name", "") if callable(code) else ""
    return name in _REFUSED or getattr(error, "status", None) in (401, 403)


def reason_of(error: BaseException) -> str:
    """Say in one line why the engine did not do what it was asked."""
    if is_refusal(error):
        return refused_token()
    details = getattr(error, "details", None)
    text = str(details() if callable(details) else error)
    return (text.splitlines() or [type(error).__name__])[0]


def sentence(record: logging.LogRecord) -> str:
    """Return a line of the SDK's log with the reason of its exception, if it has one."""
    error = record.exc_info[1] if record.exc_info else None
    details = getattr(error, "details", None)
    reason = details() if callable(details) else error
    message = record.getMessage()
    if is_refusal(error):
        return refused_token()
    if FAILURE_MARK in message:  # of a leaf, whose traceback is in `errors.pq`
        message = message.splitlines()[0]
        reason = str(reason or "").partition("\n")[0]
    said = f"{message[:1].upper()}{message[1:]}"
    return f"{said}: {reason}" if reason and str(reason) not in said else said
