"""Returns leaves to Hatchet whose code this worker does not have, for another worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from scythe.errors import EngineError

_FIRST_PAUSE = 5.0  # seconds for another worker to take the leaves; doubled each time
_LONGEST_PAUSE = 300.0
_NOTICE = 2.5  # seconds until the engine stops giving leaves to a paused worker
logger = logging.getLogger("scythe.worker")


@dataclass
class _Run:
    """The state of this worker for a run whose code it does not have."""

    pauses: int = 0
    until: float = 0.0
    is_alone: bool = False


class CodeMismatch:
    """Keeps a worker from taking the leaves again that it has just given back.

    A leaf that cannot run fails within milliseconds, so one worker with other code would take most
    of the queue. While another worker serves the experiment, this one pauses before it gives its
    first leaf back.

    Args:
        step_back: Pauses this worker in the engine for some seconds.
    """

    def __init__(self, step_back: Callable[[float], None]) -> None:
        self._step_back = step_back
        self._runs: dict[str, _Run] = {}

    async def wait(self, run_id: str, task: str) -> None:
        """Wait until a leaf of this run can be given back without returning here at once."""
        run = self._runs.setdefault(run_id, _Run())
        now = time.monotonic()
        if now >= run.until:
            # The first time, another worker may just be starting.
            run.is_alone = run.pauses > 0 and not await asyncio.to_thread(_others_serve, task)
            if run.is_alone:
                return
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**run.pauses)
            run.pauses += 1
            run.until = now + _NOTICE + pause
            self._step_back(_NOTICE + pause)
            logger.warning(
                "This worker has other code than run %s was allocated with. It returns "
                "the run's leaves and pauses for %g s, so that another worker can run them.",
                run_id,
                pause,
            )
        await asyncio.sleep(_NOTICE)


def _others_serve(task: str) -> bool:
    """Return whether other workers take leaves of an experiment."""
    from scythe.engine.lookup import connected_workers

    try:
        serving = [
            worker
            for worker in connected_workers()
            if task.lower() in worker.tasks and not worker.is_paused
        ]
    except EngineError:
        return True
    return len(serving) > 1
