"""Memory that the processes of a worker share."""

from __future__ import annotations

import time
from collections.abc import Iterable
from multiprocessing.sharedctypes import RawArray

from scythe.worker_processes.running_leaves import RunningLeaves

_LOOK = 0.05


class SharedState:
    """Shared state of all worker processes: running leaves, their CPUs, use of the executor.

    A worker process and its replacement serve side by side for a while. The replacement's number
    is that of the replaced process plus the number of all processes.

    Args:
        parts: The number of worker processes.
    """

    def __init__(self, children: int) -> None:
        self.children = children
        self._cpus = RawArray("d", 2 * children)
        self._in_use = RawArray("b", 2 * children)
        self._leaves = [RunningLeaves() for _ in range(2 * children)]

    def set_cpus(self, number: int, cpus: float) -> None:
        """Set the CPUs that the leaves of a process hold."""
        self._cpus[number] = cpus

    def cpus_of(self, numbers: Iterable[int], but: int) -> float:
        """Return the CPUs that these processes and their replacements hold, without one of them."""
        places = {place for number in numbers for place in self._places(number)} - {but}
        return sum(self._cpus[place] for place in places)

    def set_in_use(self, number: int, in_use: bool) -> None:
        """Set whether a process uses its executor."""
        self._in_use[number] = in_use

    def wait_alone(self, number: int, within: float) -> bool:
        """Wait until no other process, except its own replacement, uses its executor.

        Args:
            number: The process that waits.
            within: Seconds to wait.

        Returns:
            Whether it happened in time.
        """
        deadline = time.monotonic() + within
        others = [n for n in range(2 * self.children) if n not in self._places(number)]
        while any(self._in_use[n] for n in others):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True

    def leaves_of(self, number: int) -> RunningLeaves:
        """Return the table of a process's running leaves, which outlives the process."""
        return self._leaves[number]

    def clear(self, number: int) -> None:
        """Clear the state of a process that has ended."""
        self._leaves[number].clear()
        self._cpus[number] = 0.0
        self._in_use[number] = False

    def other(self, number: int) -> int:
        """Return the number of a process's replacement, or of the process that it replaces."""
        return (number + self.children) % (2 * self.children)

    def _places(self, number: int) -> tuple[int, int]:
        return number, self.other(number)
