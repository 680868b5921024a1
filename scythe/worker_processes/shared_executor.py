"""Coordinates the executors of worker processes that share one placement, such as a cluster."""

from __future__ import annotations

import asyncio

from scythe.executor import Capacity, Executor
from scythe.outcomes import LeafCall, LeafReply
from scythe.worker_processes.admission import Admission
from scythe.worker_processes.process_spec import ProcessSpec
from scythe.worker_processes.quarantine import Quarantine
from scythe.worker_processes.shared_state import SharedState

_LONGER = 2.0  # seconds beyond the shutdown timeout, within which the supervisor ends a process


class SharedExecutor:
    """Admits leaves when CPUs are free, and closes after the other worker processes.

    Args:
        executor: The wrapped executor.
        plan: The work of this process.
        board: Memory shared by all worker processes.
    """

    def __init__(self, executor: Executor, plan: ProcessSpec, board: SharedState) -> None:
        self._executor = executor
        self._plan = plan
        self._board = board
        self._turns = Admission(board, plan.number, plan.ahead)
        self._quarantine = Quarantine(board.leaves_of(plan.number), plan.suspects)
        board.set_in_use(plan.number, True)

    @property
    def capacity(self) -> Capacity:
        """The capacity of the wrapped executor."""
        return self._executor.capacity

    async def astart(self) -> None:
        """Start to watch the capacity."""
        await self._executor.astart()

    async def run(self, call: LeafCall) -> LeafReply:
        """Run one attempt of one leaf, see `scythe.executor.Executor`."""
        cpus = call.resources.cpus
        total = self.capacity.cpus
        async with (
            self._quarantine.entered(call) as admitted,
            self._turns.taken(cpus, total, call.schedule_timeout),
        ):
            return await self._executor.run(admitted)

    async def aclose(self) -> None:
        """Close the executor; what it started for all processes, once no other one uses it."""
        if self.capacity.is_own:
            longest = self._plan.shutdown_timeout + _LONGER
            await asyncio.to_thread(self._board.wait_alone, self._plan.number, longest)
        try:
            await self._executor.aclose()
        finally:
            self._board.set_in_use(self._plan.number, False)
