"""The nodes of the cluster as last seen, and which of them could run a leaf."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as Threads

from scythe.errors import ExecutorUnavailable
from scythe_ray.cluster import Cluster, is_other_head
from scythe_ray.failures import infeasible_failure, lost_failure
from scythe_ray.resources import Demand, RayNode, able_nodes, explain_infeasible

_MAX_AGE = 1.0  # seconds, of a table by which a leaf is refused
_EVERY = 2.0
_PATIENCE = 30.0  # seconds; a head that keeps its state may come back
_PATIENCE_WITH_OWN = 5.0
logger = logging.getLogger("scythe.ray")


class NodeTable:
    """A table that is read again and again, by which a lost head is noticed too.

    Args:
        cluster: The cluster.
        nodes: Its nodes now.
        threads: Where blocking work is done.
    """

    def __init__(self, cluster: Cluster, nodes: Sequence[RayNode], threads: Threads) -> None:
        self._cluster, self._threads = cluster, threads
        self._patience = _PATIENCE_WITH_OWN if cluster.is_own else _PATIENCE
        self._nodes = list(nodes)
        self._read_at = time.monotonic()

    async def admit(self, demand: Demand) -> list[RayNode]:
        """Return the nodes that could run a leaf.

        Raises:
            ExecutorUnavailable: There is none, so that Ray would let the leaf wait for ever; or the
                cluster does not say what nodes it has.
        """
        able = able_nodes(demand, self._nodes)
        if not able and time.monotonic() - self._read_at > _MAX_AGE:
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001 - whatever Ray raises, there is no table
                raise ExecutorUnavailable(lost_failure(str(error))) from None
            able = able_nodes(demand, self._nodes)
        if not able:
            raise ExecutorUnavailable(infeasible_failure(explain_infeasible(demand, self._nodes)))
        return able

    async def watch(self, on_gone: Callable[[list[RayNode]], None]) -> str:
        """Keep the table fresh; return why when the head is lost.

        Ray itself would say so late, or never, and abort this process should another head take its
        place.

        Args:
            on_gone: Called with the nodes that are not there any more.
        """
        answered, before = time.monotonic(), self._nodes
        while True:
            await asyncio.sleep(_EVERY)
            if not self._cluster.node_is_up():
                return "its node on this machine has ended"
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001 - whatever Ray raises, there is no table
                if is_other_head(error):
                    return f"another head was started at {self._cluster.address}"
                if time.monotonic() - answered > self._patience:
                    return f"its head at {self._cluster.address} does not answer"
                continue
            alive = {node.node_id for node in self._nodes}
            if gone := [node for node in before if node.node_id not in alive]:
                on_gone(gone)
            answered, before = time.monotonic(), self._nodes

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        self._nodes = await loop.run_in_executor(self._threads, self._cluster.nodes)
        self._read_at = time.monotonic()
