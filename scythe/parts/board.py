"""Memory that the processes of a worker share."""

from __future__ import annotations

import time
from collections.abc import Iterable
from multiprocessing.sharedctypes import RawArray

from scythe.parts.suspects import RunningLeaves

_LOOK = 0.05


class Board:
    """One place for each part: its leaves, their CPUs, and whether it uses its executor.

    A part that is replaced while it serves has its successor beside it for a while, which has the
    number of the part plus that of all parts.

    Args:
        parts: How many parts there are.
    """

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self._cpus = RawArray("d", 2 * parts)
        self._in_use = RawArray("b", 2 * parts)
        self._leaves = [RunningLeaves() for _ in range(2 * parts)]

    def set_cpus(self, number: int, cpus: float) -> None:
        """Say what the leaves of a part hold, or wait for in the first line."""
        self._cpus[number] = cpus

    def cpus_of(self, numbers: Iterable[int], but: int) -> float:
        """Return what the leaves of these parts, and of their successors, hold; of one do not."""
        places = {place for number in numbers for place in self._places(number)} - {but}
        return sum(self._cpus[place] for place in places)

    def set_in_use(self, number: int, in_use: bool) -> None:
        """Say whether a part uses its executor."""
        self._in_use[number] = in_use

    def wait_alone(self, number: int, within: float) -> bool:
        """Wait until no other part than this, or its successor, uses its executor.

        Returns:
            Whether that was so in time.
        """
        deadline = time.monotonic() + within
        others = [n for n in range(2 * self.parts) if n not in self._places(number)]
        while any(self._in_use[n] for n in others):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True

    def leaves_of(self, number: int) -> RunningLeaves:
        """Return the table of a part's running leaves, which outlives its process."""
        return self._leaves[number]

    def clear(self, number: int) -> None:
        """Forget a part whose process has ended."""
        self._leaves[number].clear()
        self._cpus[number] = 0.0
        self._in_use[number] = False

    def other(self, number: int) -> int:
        """Return the number of a part's successor, or of the part that a successor replaces."""
        return (number + self.parts) % (2 * self.parts)

    def _places(self, number: int) -> tuple[int, int]:
        return number, self.other(number)
