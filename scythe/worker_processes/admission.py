"""CPU admission across worker processes.

Each worker process offers all CPUs as slots, so that none is idle when only one kind of leaf waits.
While leaves of a scarcer resource run, leaves that need only CPUs wait here for the remaining CPUs;
otherwise they would hold the CPU that a GPU leaf needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from scythe.worker_processes.shared_state import SharedState

_LINGER = 1.0  # seconds for which CPUs stay reserved for the next leaf from the engine
_LOOK = 0.05
_EPSILON = 1e-6


class Admission:
    """CPU admission for the leaves of one worker process.

    Args:
        board: Memory shared by all worker processes, with the CPUs that each one holds.
        number: The number of this process.
        ahead: The numbers of the processes whose leaves go first.
    """

    def __init__(self, board: SharedState, number: int, ahead: Sequence[int] = ()) -> None:
        self._board = board
        self._number = number
        self._before = (*ahead, number)  # a process that this one replaces goes first, too
        self._held = 0.0
        self._said = 0.0
        self._freed = asyncio.Event()
        self._line = asyncio.Lock()
        self._lower: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def taken(self, cpus: float, total: float | None, within: float) -> AsyncGenerator[None]:
        """Wait until CPUs are free for a leaf, and hold them.

        Args:
            cpus: The CPUs of the leaf.
            total: The CPUs of all worker processes together; None to admit every leaf at once.
            within: Seconds after which the leaf continues anyway, to queue in the executor.
        """
        if total is not None and cpus > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within), self._line:
                    await self._room(cpus, total)
        self._change(cpus)
        try:
            yield
        finally:
            self._change(-cpus)
            self._freed.set()

    async def _room(self, cpus: float, total: float) -> None:
        # One leaf may always run, because the processes ahead might never leave a whole CPU.
        while self._held > _EPSILON and self._held + self._others() + cpus > total + _EPSILON:
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._freed.wait()

    def _others(self) -> float:
        return self._board.cpus_of(self._before, but=self._number)

    def _change(self, cpus: float) -> None:
        """Publish the CPUs held: an increase at once, a decrease after a while."""
        self._held = max(0.0, self._held + cpus)
        if self._held >= self._said:
            self._cancel()
            self._say()
        elif self._lower is None:
            self._lower = asyncio.get_running_loop().call_later(_LINGER, self._say)

    def _cancel(self) -> None:
        if self._lower is not None:
            self._lower.cancel()
            self._lower = None

    def _say(self) -> None:
        self._lower = None
        self._said = self._held
        self._board.set_cpus(self._number, self._said)
