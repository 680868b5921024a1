"""Filters the log of the Hatchet SDK: each new event is one readable line.

The SDK writes four lines for each leaf, and a traceback per attempt to reach a missing engine.
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
_REPEAT = 30.0  # seconds for which a line is not repeated
_NO_NEWS = ("interrupted read_with_interrupt task",)  # logged at each stop
_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_BACK = "action listener established"
RENEWED = signal.SIGURG  # sent to the worker process on a reconnect; ignored by default


class SdkLogger(logging.Logger):
    """The logger that is passed to the SDK, and by the SDK to its child processes.

    When it arrives in a child process, it installs the log filter and the metrics there.
    """

    def __reduce__(self) -> tuple[Callable[[str | None, Any], logging.Logger], tuple[Any, Any]]:
        return _logger_of_sdk_process, (worker_logs.label(), shared_counts())


def _logger_of_sdk_process(label: str | None, counts: Any) -> logging.Logger:
    if counts is not None:
        serve_counts(counts)
    return quiet_logger(label)


def quiet_logger(label: str | None = None) -> logging.Logger:
    """Return the logger for the SDK, which forwards its lines to the logger `scythe`.

    Args:
        label: Prefix of the lines in a child process of the SDK.
    """
    sdk = logging.getLogger(_SDK)
    sdk.setLevel(logging.WARNING)
    if label is not None:
        worker_logs.configure(label)
        sdk.setLevel(logging.INFO)  # for the one line that reports a reconnect
    sdk.handlers.clear()  # the SDK's own handler writes to standard output
    sdk.filters[:] = [SdkFilter(tell=label is not None)]
    sdk.parent = logging.getLogger("scythe")
    sdk.propagate = True
    logger = SdkLogger("scythe.hatchet", logging.WARNING)
    logger.parent = logging.getLogger("scythe")
    return logger


class SdkFilter(logging.Filter):
    """Passes new events, without tracebacks.

    Args:
        tell: Whether to send `RENEWED` to the parent process on a reconnect.
    """

    def __init__(self, *, tell: bool = False) -> None:
        super().__init__()
        self._tell = tell
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a line; may shorten it."""
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
    """Keeps the SDK's errors during a worker's start, to report one of them.

    Attributes:
        last: The text of the last error, or None.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: str | None = None

    def install(self) -> None:
        """Start to receive the SDK's log lines."""
        sdk = logging.getLogger(_SDK)
        sdk.addHandler(self)
        sdk.propagate = False

    def remove(self) -> None:
        """Stop receiving the SDK's log lines."""
        sdk = logging.getLogger(_SDK)
        sdk.removeHandler(self)
        sdk.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of an error."""
        self.last = record.getMessage()


def is_refusal(error: BaseException | None) -> bool:
    """Return whether the engine refused the token, in gRPC or REST."""
    code = getattr(error, "code", None)
    name = getattr(code(), "name", "") if callable(code) else ""
    return name in _REFUSED or getattr(error, "status", None) in (401, 403)


def reason_of(error: BaseException) -> str:
    """Return a one-line reason for a failed request to the engine."""
    if is_refusal(error):
        return refused_token()
    details = getattr(error, "details", None)
    text = str(details() if callable(details) else error)
    return (text.splitlines() or [type(error).__name__])[0]


def sentence(record: logging.LogRecord) -> str:
    """Return a line of the SDK's log, with the reason of its exception if it has one."""
    error = record.exc_info[1] if record.exc_info else None
    details = getattr(error, "details", None)
    reason = details() if callable(details) else error
    message = record.getMessage()
    if is_refusal(error):
        return refused_token()
    if FAILURE_MARK in message:  # a leaf's failure; its traceback is in `errors.pq`
        message = message.splitlines()[0]
        reason = str(reason or "").partition("\n")[0]
    said = f"{message[:1].upper()}{message[1:]}"
    return f"{said}: {reason}" if reason and str(reason) not in said else said
