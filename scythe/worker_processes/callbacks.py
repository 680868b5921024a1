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

from scythe.worker_processes.process_spec import ProcessFailed

_AGAIN = 2.0  # seconds until a failed request to the engine is repeated
logger = logging.getLogger("scythe.worker")


class ProcessCallbacks:
    """The `WorkerCallbacks` of a worker process.

    Args:
        send: Takes messages to the supervisor.
    """

    def __init__(self, send: Callable[[ProcessFailed], None]) -> None:
        self._send = send
        self._wanted = self._told = True
        self._at = self._back_at = float("-inf")
        self._telling: threading.Thread | None = None

    def offer(self, *, taking: bool) -> None:
        """Set whether this worker takes leaves; `tell_engine` passes it to the engine."""
        self._wanted = taking

    def step_back(self, seconds: float) -> None:
        """Pause this worker in the engine for some seconds from now on."""
        self._back_at = max(self._back_at, time.monotonic() + seconds)

    def leave(self, message: str) -> None:
        """Ask the supervisor to stop all worker processes, for this reason."""
        self._send(ProcessFailed(message, for_good=True))

    def start_anew(self, message: str) -> NoReturn:
        """Exit this process for this reason; the supervisor restarts it."""
        self._send(ProcessFailed(message, away=True))
        flush()
        os._exit(1)

    def tell_engine(self, worker: Any) -> None:
        """Pause or resume this worker in the engine, as last requested. Does not block."""
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
        except Exception as error:  # noqa: BLE001 - the engine may be unreachable as well
            logger.debug("Cannot pause or resume the worker in the engine, trying again: %s", error)
        else:
            self._told = taking
            logger.info("%s this worker in Hatchet.", "Resumed" if taking else "Paused")


def flush() -> None:
    """Flush the output of this process, before it exits without cleanup."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
