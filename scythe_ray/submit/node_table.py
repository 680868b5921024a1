"""The table of Ray nodes, and the choice of those that could run a leaf."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as Threads

from scythe.errors import ExecutorUnavailable
from scythe_ray.cluster.cluster import Cluster, is_other_head
from scythe_ray.config.resources import Demand, RayNode, able_nodes, explain_infeasible
from scythe_ray.submit.failures import infeasible_failure, lost_failure, node_lost_failure

_MAX_AGE = 1.0  # seconds; a leaf is refused only by a table that is not older
_EVERY = 2.0
_RETURN = 5.0  # seconds for a Ray node to come back, or for labels to be withdrawn everywhere
_PATIENCE = 30.0  # seconds without an answer, after which the head is lost
_PATIENCE_WITH_OWN = 5.0
OnChange = Callable[[Sequence[RayNode], list[RayNode], list[RayNode]], None]
logger = logging.getLogger("scythe.ray")


class NodeTable:
    """The live Ray nodes, refreshed often enough to detect a lost head.

    Args:
        cluster: The cluster.
        nodes: Its present Ray nodes.
        threads: Runs blocking calls.
        ceiling: Ray nodes that the autoscaler may start for a leaf that no present one can run.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: Sequence[RayNode],
        threads: Threads,
        ceiling: Sequence[RayNode] = (),
    ) -> None:
        self._cluster = cluster
        self._threads = threads
        self._ceiling = list(ceiling)
        self._patience = _PATIENCE_WITH_OWN if cluster.is_own else _PATIENCE
        self._nodes = list(nodes)
        self._gone: dict[str, RayNode] = {}
        self._read_at = time.monotonic()

    @property
    def alive(self) -> set[str]:
        """The ids of the live Ray nodes at the last refresh."""
        return {node.node_id for node in self._nodes}

    async def admit(self, demand: Demand) -> list[RayNode]:
        """Return the Ray nodes that could run a leaf; empty if the autoscaler may start one.

        Raises:
            ExecutorUnavailable: No Ray node can ever run the leaf, or the cluster does not answer.
                If a suitable Ray node has just gone, this is raised after a delay in which the
                worker's labels are withdrawn, so that another worker takes the leaf.
        """
        lost = able_nodes(demand, list(self._gone.values()))
        deadline = time.monotonic() + (_RETURN if lost else 0.0)
        able = able_nodes(demand, self._nodes)
        while not able and not able_nodes(demand, self._ceiling):
            try:
                await self._refresh()
            except Exception as error:  # noqa: BLE001 - whatever Ray raises, there is no table
                raise ExecutorUnavailable(lost_failure(str(error))) from None
            able = able_nodes(demand, self._nodes)
            if able or time.monotonic() >= deadline:
                break
            await asyncio.sleep(_MAX_AGE)
        if able or able_nodes(demand, self._ceiling):
            return able
        if lost:
            raise ExecutorUnavailable(node_lost_failure(lost[-1]))
        known = [*self._nodes, *self._ceiling]
        raise ExecutorUnavailable(infeasible_failure(explain_infeasible(demand, known)))

    async def watch(self, on_change: OnChange) -> str:
        """Keep the table fresh; return the reason when the head is lost.

        Ray itself would report the loss late or never, and abort this process when another head
        takes its place.

        Args:
            on_change: Called with all Ray nodes, the lost ones and the new ones.
        """
        answered = time.monotonic()
        before = self._nodes
        while True:
            await asyncio.sleep(_EVERY)
            if not self._cluster.node_is_up():
                return "its node on this machine has ended"
            try:
                await self.read()
            except Exception as error:  # noqa: BLE001 - whatever Ray raises, there is no table
                if is_other_head(error):
                    return f"another head was started at {self._cluster.address}"
                if time.monotonic() - answered > self._patience:
                    return f"its head at {self._cluster.address} does not answer"
                continue
            answered = time.monotonic()
            if all(node.node_id != self._cluster.node_id for node in self._nodes):
                return "this machine is no longer a node of it"  # so it cannot submit anything
            gone = _without(before, self._nodes)
            joined = _without(self._nodes, before)
            if gone or joined:
                on_change(self._nodes, gone, joined)
            before = self._nodes

    async def _refresh(self) -> None:
        """Read the table unless it is fresh."""
        if time.monotonic() - self._read_at > _MAX_AGE:
            await self.read()

    async def read(self) -> None:
        """Read the table.

        Raises:
            Exception: Whatever Ray raises; the head does not answer.
        """
        loop = asyncio.get_running_loop()
        nodes = await loop.run_in_executor(self._threads, self._cluster.nodes)
        self._gone.update({node.node_id: node for node in _without(self._nodes, nodes)})
        self._nodes = nodes
        self._read_at = time.monotonic()


def _without(nodes: Sequence[RayNode], others: Sequence[RayNode]) -> list[RayNode]:
    """Return the nodes that are not among the others."""
    known = {node.node_id for node in others}
    return [node for node in nodes if node.node_id not in known]
