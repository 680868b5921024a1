"""Whose turn it is where leaves of several parts of a worker run on the same CPUs.

Each part offers all that there is for it, so that no CPU is idle when only one kind of leaves is
there. When leaves of a scarcer resource come, those that only need CPUs wait here for what is left:
otherwise they would hold the CPU that the GPU's leaf needs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from scythe.parts.board import Board

_LINGER = 1.0  # seconds that CPUs stay reserved for the next leaf, which the engine has to send
_LOOK = 0.05
_EPSILON = 1e-6


class Turns:
    """The turns of one part's leaves.

    Args:
        board: What the parts hold.
        number: This part.
        ahead: Parts whose leaves go first.
    """

    def __init__(self, board: Board, number: int, ahead: Sequence[int] = ()) -> None:
        self._board = board
        self._number = number
        self._before = (*ahead, number)  # a part that this one replaces goes first, too
        self._held = 0.0
        self._said = 0.0
        self._freed = asyncio.Event()
        self._line = asyncio.Lock()
        self._lower: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def taken(self, cpus: float, total: float | None, within: float) -> AsyncGenerator[None]:
        """Wait for the leaf's turn, and hold its CPUs.

        Args:
            cpus: What it takes.
            total: What there is for all parts together; None where nothing is to be waited for.
            within: Seconds after which it goes on in any case: the executor has a line, too.
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
        # One leaf may always run: those that go first may never leave a whole CPU.
        while self._held > _EPSILON and self._held + self._others() + cpus > total + _EPSILON:
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._freed.wait()

    def _others(self) -> float:
        return self._board.cpus_of(self._before, but=self._number)

    def _change(self, cpus: float) -> None:
        """Tell the others: more at once, less only when it stays less."""
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
