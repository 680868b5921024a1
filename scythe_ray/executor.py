"""The executor `ray`: sends leaves to a Ray cluster, and holds their slots until Ray is done."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import pickle
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from scythe.errors import ExecutorUnavailable, LeafFailed
from scythe.executor import Capacity
from scythe.outcomes import LeafCall, LeafFailure, LeafOutcome, LeafResult
from scythe.pool_process import to_the_end
from scythe_ray.attempt import Attempt, PlaceLost
from scythe_ray.cluster import Cluster
from scythe_ray.controls import Controls
from scythe_ray.failures import closed_failure, infeasible_failure
from scythe_ray.nodes import NodeTable
from scythe_ray.remote import Job, UsedProcess, run_envelope, this_driver
from scythe_ray.resources import GPU, Demand, RayNode, demand_of

_THREADS = 32
_BACKOFF = 0.5  # seconds before a leaf is sent again, doubled each time
_LONGEST_BACKOFF = 10.0
_NAME_CHARS = 60
logger = logging.getLogger("scythe.ray")


class RayExecutor:
    """Runs leaves on a cluster. It belongs to the loop that first uses it.

    Args:
        cluster: The cluster, attached.
        nodes: Its nodes.
        capacity: What is offered to the worker.
        scope: Whether leaves stay on this node where they can.
        system_retries: How often a leaf is sent again when its place was lost.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: Sequence[RayNode],
        capacity: Capacity,
        *,
        scope: Literal["node", "cluster"],
        system_retries: int,
    ) -> None:
        self._cluster, self._capacity = cluster, capacity
        self._scope, self._system_retries = scope, system_retries
        self._threads = ThreadPoolExecutor(_THREADS, "scythe-ray")
        self._nodes = NodeTable(cluster.nodes, self._threads, nodes)
        driver = this_driver(uuid.uuid4().hex, cluster.session_dir)
        self._driver = pickle.dumps(driver)
        self._controls = Controls(driver, self._driver, cluster.node_id, self._threads)
        self._remote = _Exported()
        self._attempts: set[Attempt] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def capacity(self) -> Capacity:
        """What the executor offers."""
        return self._capacity

    async def run(self, call: LeafCall) -> LeafResult:
        """Run one try of a leaf, see `scythe.executor.Executor`.

        A leaf whose process crashed is tried once more in another one; a second crash is the
        leaf's. A leaf whose place was lost is sent again a few times.
        """
        outcome = await self._run(call)
        if isinstance(outcome, LeafFailure):
            raise LeafFailed(outcome)
        return outcome

    async def aclose(self) -> None:
        """End the leaves that still run, and leave the cluster; end it if it was started here."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await to_the_end(self._closing)

    async def _run(self, call: LeafCall) -> LeafOutcome:
        demand = demand_of(call)
        crashed, losses = False, 0
        while True:
            try:
                outcome = await self._attempt(call, demand)
            except PlaceLost as loss:
                if loss.is_crash and crashed:
                    raise LeafFailed(_again(loss.failure)) from None
                if not loss.is_crash and losses >= self._system_retries:
                    raise ExecutorUnavailable(loss.failure) from None
                crashed = crashed or loss.is_crash
                losses += not loss.is_crash
                logger.warning("Leaf %s: %s. It is sent again.", call.leaf_id, loss.failure.summary)
                if not loss.is_crash:
                    await asyncio.sleep(min(_LONGEST_BACKOFF, _BACKOFF * 2 ** (losses - 1)))
                continue
            if not isinstance(outcome, UsedProcess):
                return outcome

    async def _attempt(self, call: LeafCall, demand: Demand) -> LeafOutcome | UsedProcess:
        self._check_open()
        able = [node.node_id for node in await self._nodes.admit(demand)]
        self._check_open()
        nodes = self._preferred(able)
        self._controls.prepare(nodes)
        attempt = self._submit(call, demand, nodes)
        self._attempts.add(attempt)
        try:
            return await attempt.outcome()
        finally:
            self._attempts.discard(attempt)

    def _preferred(self, able: list[str]) -> list[str]:
        """Return the nodes that the leaf may run on: this one only where it can."""
        here = self._cluster.node_id
        return [here] if self._scope == "node" and here in able else able

    def _submit(self, call: LeafCall, demand: Demand, nodes: list[str]) -> Attempt:
        token = uuid.uuid4().hex
        uses_gpu = demand.amounts.get(GPU, 0) > 0
        once = call.resources.fresh_process or uses_gpu
        job = pickle.dumps(Job(token=token, call=call, uses_gpu=uses_gpu, once=once))
        options = demand.options()
        if nodes == [self._cluster.node_id]:
            options["scheduling_strategy"] = self._remote.this_node(self._cluster.node_id)
        name = f"{call.code.experiment} {call.leaf_id}"[:_NAME_CHARS]
        try:
            ref = (
                self._remote.function(once=once)
                .options(name=name, **options)
                .remote(self._driver, job)
            )
        except (ValueError, TypeError) as error:
            raise LeafFailed(
                infeasible_failure(
                    f"Ray refuses what the leaf asks for ({demand.describe()}): {error}. Correct "
                    "`resources=` in Register()."
                )
            ) from error
        return Attempt(call, token, ref, nodes, demand.describe(), self._controls)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise ExecutorUnavailable(closed_failure())

    async def _close(self) -> None:
        ending = [attempt.abort() for attempt in self._attempts]
        await asyncio.gather(*ending, return_exceptions=True)
        await self._controls.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._cluster.close)
        self._threads.shutdown(wait=False)


class _Exported:
    """The envelope as Ray functions: exported to the cluster once, whatever the leaves are."""

    def __init__(self) -> None:
        import ray

        make: Any = ray.remote
        self._many: Any = make(max_retries=0)(run_envelope)
        self._once: Any = make(max_retries=0, max_calls=1)(run_envelope)
        self._here: Any = None

    def function(self, *, once: bool) -> Any:
        """Return the function; with `once`, the one after which its process ends."""
        return self._once if once else self._many

    def this_node(self, node_id: str) -> Any:
        """Return the strategy by which a leaf stays on a node for as long as the node is there."""
        if self._here is None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            self._here = NodeAffinitySchedulingStrategy(node_id, soft=True)
        return self._here


def _again(failure: LeafFailure) -> LeafFailure:
    return dataclasses.replace(failure, message=f"{failure.message}, also when it was tried again")
