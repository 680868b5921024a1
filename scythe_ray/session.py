"""One attachment to a cluster: what is exported to it, its nodes, and the channel to its leaves."""

from __future__ import annotations

import itertools
import pickle
import uuid
from collections.abc import Sequence
from concurrent.futures import Executor as Threads
from typing import Any, Literal

from scythe.errors import ExecutorUnavailable
from scythe.outcomes import LeafCall
from scythe_ray.attempt import Attempt
from scythe_ray.cluster import Cluster
from scythe_ray.controls import Controls
from scythe_ray.failures import infeasible_failure
from scythe_ray.nodes import NodeTable
from scythe_ray.remote import Job, run_envelope, this_driver
from scythe_ray.resources import GPU, Demand, RayNode

_NAME_CHARS = 60


class Session:
    """Submits leaves to a cluster. After a lost head there is a new one.

    Args:
        cluster: The cluster, attached.
        nodes: Its nodes.
        scope: Whether leaves stay on this node where they can.
        threads: Where blocking work is done.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: Sequence[RayNode],
        scope: Literal["node", "cluster"],
        threads: Threads,
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        driver_id = uuid.uuid4().hex
        driver = this_driver(driver_id, cluster.session_dir, cluster.temporary)
        make: Any = ray.remote
        # Exported once each. After a leaf of the second one its process ends.
        self._many: Any = make(max_retries=0)(run_envelope)
        self._once: Any = make(max_retries=0, max_calls=1)(run_envelope)
        self._stay: Any = NodeAffinitySchedulingStrategy(cluster.node_id, soft=True)
        self._driver = pickle.dumps(driver)
        self._tokens = (f"{driver_id}-{number}" for number in itertools.count(1))
        self._scope, self._here = scope, cluster.node_id
        self._nodes = NodeTable(cluster, nodes, threads)
        self._controls = Controls(driver, self._driver, cluster.node_id, threads)

    async def submit(self, call: LeafCall, demand: Demand) -> Attempt:
        """Give a leaf to Ray.

        Raises:
            ExecutorUnavailable: No node could run it, or Ray refuses what it asks for.
        """
        able = [node.node_id for node in await self._nodes.admit(demand)]
        stays = self._scope == "node" and self._here in able
        nodes = [self._here] if stays else able
        self._controls.prepare(nodes)
        token = next(self._tokens)
        uses_gpu = demand.amounts.get(GPU, 0) > 0
        # A process that used a GPU keeps some of its memory until it ends.
        once = call.resources.fresh_process or uses_gpu
        options = demand.options()
        if stays:
            options["scheduling_strategy"] = self._stay
        options["name"] = f"{call.code.experiment} {call.leaf_id}"[:_NAME_CHARS]
        job = pickle.dumps(Job(token=token, call=call, uses_gpu=uses_gpu))
        try:
            function = (self._once if once else self._many).options(**options)
            ref = function.remote(self._driver, job)
        except (ValueError, TypeError) as error:
            raise ExecutorUnavailable(
                infeasible_failure(
                    f"Ray refuses what the leaf asks for ({demand.describe()}): {error}. Correct "
                    "`resources=` in Register()."
                )
            ) from error
        return Attempt(call, token, ref, nodes, demand.describe(), self._controls, retire=once)

    async def watch(self) -> str:
        """Return why when the cluster is lost."""
        return await self._nodes.watch()

    async def close(self) -> None:
        """Remove what the leaves' processes left. No leaf runs any more."""
        await self._controls.close()
