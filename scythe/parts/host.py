"""Requests of an executor to the worker process that it runs in."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from scythe.parts.plan import PartFailed

_AGAIN = 2.0  # seconds after which the engine is told once more what it did not take
logger = logging.getLogger("scythe.worker")


class PartHost:
    """The `scythe.executor.Host` of a part.

    Args:
        send: Takes messages to the supervisor.
    """

    def __init__(self, send: Callable[[PartFailed], None]) -> None:
        self._send = send
        self._wanted = self._told = True
        self._at = self._back_at = float("-inf")
        self._telling: threading.Thread | None = None

    def offer(self, *, taking: bool) -> None:
        """See `scythe.executor.Host`; the engine is told by the next `tell_engine`."""
        self._wanted = taking

    def step_back(self, seconds: float) -> None:
        """Let the engine give this worker no leaves for some seconds from now on."""
        self._back_at = max(self._back_at, time.monotonic() + seconds)

    def leave(self, message: str) -> None:
        """See `scythe.executor.Host`: the supervisor then stops all parts."""
        self._send(PartFailed(message, for_good=True))

    def start_anew(self, message: str) -> NoReturn:
        """See `scythe.executor.Host`: the supervisor starts a part that ends."""
        self._send(PartFailed(message, away=True))
        flush()
        os._exit(1)

    def tell_engine(self, worker: Any) -> None:
        """Tell the engine what was offered last, if it does not know. Does not block."""
        now = time.monotonic()
        is_telling = self._telling is not None and self._telling.is_alive()
        wanted = self._wanted and now >= self._back_at
        if wanted == self._told or is_telling or now < self._at + _AGAIN:
            return
        self._at = now
        self._telling = threading.Thread(
            target=self._tell, args=(worker, wanted), name="scythe-offer", daemon=True
        )
        self._telling.start()

    def _tell(self, worker: Any, taking: bool) -> None:
        from scythe.engine.running_worker import set_taking

        try:
            set_taking(worker, taking=taking)
        except Exception as error:  # noqa: BLE001 - the engine may be away as well
            logger.debug("The engine was not told: %s", error)
        else:
            self._told = taking
            logger.info("Hatchet gives this worker %s.", "leaves again" if taking else "no leaves")


def flush() -> None:
    """Write out what this process has printed, before it ends without further ado."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
