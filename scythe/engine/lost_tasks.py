"""Notice what was lost when the connection to the engine was renewed.

An engine that dies, or a connection that breaks, takes along what was just being sent. The engine
does not send a task again while the worker's heart beats: it would hold its slot, and wait, until
its timeout. And it tells a scatter node the ends of its children in the order in which they came:
over a new connection it waits for those that it has told already, and after a minute makes the
worker drop the node, without giving it to another. A worker that ends gives both back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_LOOKS = 6  # in a row that show a difference
_LOOKS_LEFT = 60  # after the connection was renewed
_LOOK = 10.0  # seconds between two looks
_LOOK_SOON = 2.0
logger = logging.getLogger("scythe.worker")


@dataclass(frozen=True, slots=True)
class WorkerSight:
    """A worker, as the engine sees it.

    Attributes:
        renewed: How often the connection was renewed.
        counted: Tasks that it runs, as the engine counts.
        here: Tasks that it really has.
    """

    renewed: int
    counted: int
    here: int


class LostTasks:
    """Compares what the engine counts with what is here, each time the connection was renewed.

    A task that has just been sent, or that has just ended, makes a difference too, or hides one:
    only one that shows at several looks in a row counts, and it is looked for some time. Nodes that
    are here always count.

    Args:
        look: Returns what the engine sees now, None where it does not answer.
        waits: Whether the tasks are nodes, which wait for the engine.
    """

    def __init__(self, look: Callable[[], WorkerSight | None], *, waits: bool = False) -> None:
        self._look = look
        self._waits = waits
        self._renewed = 0
        self._left = self._in_a_row = 0

    @property
    def is_suspicious(self) -> bool:
        """Whether to look again soon."""
        return self._left > 0

    def found(self) -> int:
        """Look once; return how many tasks are lost."""
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
    """Look again and again; return why this part should be started anew, or nothing.

    Args:
        look: Returns what the engine sees now, None where it does not answer.
        is_over: Whether to look no more.
        waits: Whether the tasks are nodes, which wait for the engine.
    """
    tasks = LostTasks(look, waits=waits)
    while not is_over():
        if count := tasks.found():
            message = (
                f"{count} task(s) may wait for what was lost with the connection to Hatchet, "
                "which gives them out again"
            )
            logger.warning("%s. This part ends what it runs, and is started anew.", message)
            return message
        time.sleep(_LOOK_SOON if tasks.is_suspicious else _LOOK)
    return ""
