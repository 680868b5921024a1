"""Detects tasks and events that were lost when the connection to the engine was renewed.

When the engine dies or a connection breaks, messages in transit are lost. The engine does not send
a task again while the worker sends heartbeats, so the task would hold its slot until its timeout.
And it sends the ends of a scatter node's children in order: over a new connection it waits for
those that it has sent already, and after a minute it makes the worker drop the node without giving
it to another worker. Restarting the worker process returns both to the engine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_LOOKS = 6  # comparisons in a row that must differ
_LOOKS_LEFT = 60  # comparisons after the connection was renewed
_LOOK = 10.0  # seconds between two comparisons
_LOOK_SOON = 2.0  # seconds, after a difference
logger = logging.getLogger("scythe.worker")


@dataclass(frozen=True, slots=True)
class WorkerSight:
    """The tasks of a worker, as the engine and the worker count them.

    Attributes:
        renewed: Number of times the connection was renewed.
        counted: Number of its tasks by the engine's count.
        here: Number of tasks that it really has.
    """

    renewed: int
    counted: int
    here: int


class LostTasks:
    """Compares the engine's count of tasks with the worker's, after the connection was renewed.

    A task that is being sent or has just ended also makes a difference, or hides one. So only a
    difference in several comparisons in a row counts, and comparisons continue for some time. All
    scatter nodes count as lost, because they wait for events of the engine.

    Args:
        look: Returns both counts, or None if the engine does not answer.
        waits: Whether the tasks are scatter nodes.
    """

    def __init__(self, look: Callable[[], WorkerSight | None], *, waits: bool = False) -> None:
        self._look = look
        self._waits = waits
        self._renewed = 0
        self._left = self._in_a_row = 0

    @property
    def is_suspicious(self) -> bool:
        """Whether the next comparison should come soon."""
        return self._left > 0

    def found(self) -> int:
        """Compare once; return the number of lost tasks."""
        seen = self._look()
        if seen is None:
            return 0
        if seen.renewed != self._renewed:
            self._renewed = seen.renewed
            if self._waits and seen.here:
                return seen.here
            self._left = _LOOKS_LEFT
            self._in_a_row = 0
        if not self._left:
            return 0
        lost = seen.counted - seen.here
        self._in_a_row = self._in_a_row + 1 if lost > 0 else 0
        found = self._in_a_row == _LOOKS
        self._left = 0 if found or seen.counted == 0 else self._left - 1
        return lost if found else 0


def wait_for_lost(
    look: Callable[[], WorkerSight | None], is_over: Callable[[], bool], *, waits: bool
) -> str:
    """Compare until something is lost; return the reason for a restart, or an empty text.

    Args:
        look: Returns both counts, or None if the engine does not answer.
        is_over: Returns whether to stop.
        waits: Whether the tasks are scatter nodes.
    """
    tasks = LostTasks(look, waits=waits)
    while not is_over():
        if count := tasks.found():
            message = (
                f"events of {count} task(s) may have been lost when the connection to Hatchet "
                "broke, so that Hatchet has to reassign them"
            )
            logger.warning("Restarting this worker process: %s.", message)
            return message
        time.sleep(_LOOK_SOON if tasks.is_suspicious else _LOOK)
    return ""
