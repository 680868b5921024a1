"""Leaves whose code this worker does not have go back to Hatchet, for another worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from scythe.errors import EngineError

_FIRST_PAUSE = 5.0  # seconds in which another worker may take the leaves, doubled each time
_LONGEST_PAUSE = 300.0
_NOTICE = 2.5  # seconds until the engine gives a worker that is paused no more leaves
logger = logging.getLogger("scythe.worker")


@dataclass
class _Run:
    """State of this worker for a run whose code it does not have."""

    pauses: int = 0
    until: float = 0.0
    is_alone: bool = False


class GiveBack:
    """Keeps a worker from taking leaves again that it has just given back.

    A leaf that cannot run fails within milliseconds, so that one wrong worker would take most of
    the queue. It takes no leaves for a while before it lets go of the first one, as long as
    another worker serves the experiment.

    Args:
        step_back: Lets the engine give this worker no leaves for some seconds.
    """

    def __init__(self, step_back: Callable[[float], None]) -> None:
        self._step_back = step_back
        self._runs: dict[str, _Run] = {}

    async def wait(self, run_id: str, task: str) -> None:
        """Wait until a leaf of this run can be given back without coming here again at once."""
        run = self._runs.setdefault(run_id, _Run())
        now = time.monotonic()
        if now >= run.until:
            # At first another worker may just be starting.
            run.is_alone = run.pauses > 0 and not await asyncio.to_thread(_others_serve, task)
            if run.is_alone:
                return
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**run.pauses)
            run.pauses += 1
            run.until = now + _NOTICE + pause
            self._step_back(_NOTICE + pause)
            logger.warning(
                "This worker has other code than the run %s was allocated with. It gives its "
                "leaves back and takes none for %g s, so that another worker can run them.",
                run_id,
                pause,
            )
        await asyncio.sleep(_NOTICE)


def _others_serve(task: str) -> bool:
    """Return whether workers beside this one take leaves of an experiment."""
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
