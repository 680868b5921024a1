"""The nodes of the cluster as last seen, and which of them could run a leaf."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as Threads

from scythe.errors import ExecutorUnavailable
from scythe_ray.discovery import within
from scythe_ray.failures import infeasible_failure, lost_failure
from scythe_ray.resources import Demand, RayNode, able_nodes, explain_infeasible

_MAX_AGE = 2.0  # seconds
_TIMEOUT = 15.0


class NodeTable:
    """A table that is read again in the background while it is used.

    Args:
        read: Returns the nodes that are alive; blocks.
        threads: Where it is called.
        nodes: The nodes now.
    """

    def __init__(
        self, read: Callable[[], list[RayNode]], threads: Threads, nodes: Sequence[RayNode]
    ) -> None:
        self._read, self._threads = read, threads
        self._nodes = list(nodes)
        self._read_at = time.monotonic()
        self._reading: asyncio.Task[None] | None = None

    async def admit(self, demand: Demand) -> list[RayNode]:
        """Return the nodes that could run a leaf.

        Raises:
            ExecutorUnavailable: There is none, so that Ray would let the leaf wait for ever; or the
                cluster does not say what nodes it has.
        """
        old = time.monotonic() - self._read_at > _MAX_AGE
        reading = self._refresh() if old else None
        if not (able := able_nodes(demand, self._nodes)):
            await self._await_refresh(reading or self._refresh())
            able = able_nodes(demand, self._nodes)
        if not able:
            raise ExecutorUnavailable(infeasible_failure(explain_infeasible(demand, self._nodes)))
        return able

    def replace(self, nodes: Sequence[RayNode]) -> None:
        """Put in what another way of asking gave."""
        self._nodes, self._read_at = list(nodes), time.monotonic()

    def _refresh(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read_again())
        return self._reading

    async def _read_again(self) -> None:
        loop = asyncio.get_running_loop()
        nodes = await loop.run_in_executor(
            self._threads, within, _TIMEOUT, self._read, "the table of Ray's nodes"
        )
        self.replace(nodes)

    async def _await_refresh(self, reading: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(reading)
        except Exception:  # noqa: BLE001 - whatever Ray raises, there is no table
            raise ExecutorUnavailable(lost_failure("it does not say what nodes it has")) from None
