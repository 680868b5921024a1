"""One attachment to a cluster: exported functions, Ray nodes, and submitted leaves."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as Threads
from typing import Any, NamedTuple

from scythe.errors import ExecutorUnavailable
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafOutcome
from scythe_ray.cluster.cluster import Cluster
from scythe_ray.config.resources import GPU, Demand, RayNode, able_nodes
from scythe_ray.config.settings import RaySettings
from scythe_ray.on_node.task import Job, UsedProcess, run_envelope, this_driver
from scythe_ray.submit.failures import (
    infeasible_failure,
    lost_failure,
    taken_failure,
)
from scythe_ray.submit.node_agent_client import NodeAgentClients
from scythe_ray.submit.node_table import NodeTable
from scythe_ray.submit.submission import PlacementLost, Submission
from scythe_ray.submit.task_reuse import ReusedTask, TaskReuse

_NAME_CHARS = 60


class _Kind(NamedTuple):
    """The key of leaves that may share a Ray task."""

    amounts: frozenset[tuple[str, float]]
    labels: frozenset[tuple[str, str]]
    stays: bool  # runs on this Ray node
    alone: bool  # its process is not used again


class Session:
    """Submits leaves to a cluster. After the loss of the head, a new session replaces it.

    Args:
        cluster: The cluster, attached.
        nodes: Its nodes.
        settings: Scope and autoscaling.
        threads: Where blocking work is done.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: Sequence[RayNode],
        settings: RaySettings,
        threads: Threads,
    ) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        driver_id = uuid.uuid4().hex
        driver = this_driver(driver_id, cluster.session_dir, cluster.temporary, cluster.shipped)
        make: Any = ray.remote
        # Each is exported once. The second one ends its process after a leaf.
        self._many: Any = make(max_retries=0)(run_envelope)
        self._once: Any = make(max_retries=0, max_calls=1)(run_envelope)
        self._exported: set[bool] = set()  # values of `alone` whose function has been exported
        self._functions: dict[tuple[Any, ...], Any] = {}
        self._stay: Any = NodeAffinitySchedulingStrategy(cluster.node_id, soft=True)
        self._driver = pickle.dumps(driver)
        self._tokens = (f"{driver_id}-{number}" for number in itertools.count(1))
        self._scope = settings.SCOPE
        self._here = cluster.node_id
        self._nodes = NodeTable(cluster, nodes, threads, settings.ceiling)
        self._controls = NodeAgentClients(driver, self._driver, cluster.node_id, threads)
        self._leases = TaskReuse(self._controls.folder)
        self._cluster = cluster
        self._threads = threads
        self._attempts: dict[Submission, Demand] = {}
        self._aborted: LeafFailure | None = None
        self._lost: LeafFailure | None = None

    async def run(
        self, call: LeafCall, demand: Demand, *, anew: bool = False
    ) -> LeafOutcome | UsedProcess:
        """Give a leaf to Ray and see it end, see `Submission.outcome`.

        Args:
            call: The try of the leaf.
            demand: What it needs.
            anew: Whether the process that it is given ends after it, or instead of running it.

        Raises:
            ExecutorUnavailable: Also where no node could run it, or Ray refuses what it asks for.
            PlacementLost: As `Submission.outcome`; also where the cluster was given up meanwhile.
        """
        outcome = None
        while outcome is None:
            able = [node.node_id for node in await self._nodes.admit(demand)]
            self._check_in_use()
            await self._leases.open()
            kind = self._kind(call, demand, able, anew=anew)
            if kind.alone not in self._exported:
                await self._see_head()
            lease = None if kind.alone else await self._leases.take(kind)
            self._check_in_use()
            attempt = self._submit(call, demand, able, kind, lease)
            self._exported.add(kind.alone)
            self._attempts[attempt] = demand
            try:
                outcome = await attempt.outcome()
            except PlacementLost as loss:
                raise await self._refined(loss) from None
            finally:
                del self._attempts[attempt]
            if isinstance(outcome, LeafFailure):
                self._controls.sweep_soon(attempt.nodes)
        return outcome

    async def watch(self, on_nodes: Callable[[Sequence[RayNode]], None]) -> str:
        """Watch the Ray nodes; return the reason when the cluster is lost.

        Args:
            on_nodes: Called with the live Ray nodes at each change.
        """

        def changed(nodes: Sequence[RayNode], gone: list[RayNode], joined: list[RayNode]) -> None:
            on_nodes(nodes)
            self._on_joined(joined)
            if gone:
                self._on_gone(gone)

        return await self._nodes.watch(changed)

    async def give_up(self, failure: LeafFailure) -> None:
        """Fail all leaves at once, because Ray no longer answers."""
        self._lost = failure  # also for a leaf that is about to be submitted
        for attempt in self._attempts:
            attempt.give_up(failure)
        await self._leases.close()

    async def close(self, failure: LeafFailure) -> None:
        """End all leaves with this failure, and remove the files of their processes."""
        self._aborted = failure
        ending = [attempt.abort(failure) for attempt in self._attempts]
        await asyncio.gather(*ending, return_exceptions=True)
        await self._leases.close()
        await self._controls.close(self._nodes.alive)

    async def _see_head(self) -> None:
        """Check that the head answers before Ray exports a function to it.

        The export would block this whole process for as long as the head hangs.
        """
        try:
            await self._nodes.read()
        except Exception as error:  # noqa: BLE001 - any exception means that the head does not answer
            raise PlacementLost(lost_failure(str(error)), is_crash=False) from None

    def _check_in_use(self) -> None:
        if self._aborted is not None:
            raise ExecutorUnavailable(self._aborted)
        if self._lost is not None:
            raise PlacementLost(self._lost, is_crash=False)

    def _kind(self, call: LeafCall, demand: Demand, able: list[str], *, anew: bool) -> _Kind:
        is_draining = self._here in self._cluster.draining  # Ray schedules nothing on it
        return _Kind(
            frozenset(demand.amounts.items()),
            frozenset(demand.labels.items()),
            stays=self._scope == "node" and self._here in able and not is_draining,
            alone=call.resources.fresh_process or anew,
        )

    def _submit(
        self, call: LeafCall, demand: Demand, able: list[str], kind: _Kind, lease: ReusedTask | None
    ) -> Submission:
        nodes = [self._here] if kind.stays else able
        self._controls.prepare(nodes)
        token = next(self._tokens)
        uses_gpu = demand.amounts.get(GPU, 0) > 0
        job = pickle.dumps(Job(token, call, uses_gpu, may_stay=not kind.alone))
        if lease is not None:
            lease.send(job)
        else:
            ref = self._start(call.code.experiment, demand, kind, job)
            lease = self._leases.add(token, ref, None if kind.alone else kind)
        description = demand.describe()
        return Submission(
            call,
            token,
            lease,
            nodes,
            description,
            self._controls,
            retire=kind.alone,
            is_fixed=kind.stays,
        )

    def _start(self, experiment: str, demand: Demand, kind: _Kind, job: bytes) -> Any:
        """Submit a Ray task; return the reference to its result."""
        try:
            return self._function(experiment, demand, kind).remote(self._driver, job)
        except (ValueError, TypeError) as error:
            raise ExecutorUnavailable(
                infeasible_failure(
                    f"Ray refuses the demand of the leaf ({demand.describe()}): {error}. Correct "
                    "`resources=` in Register()."
                )
            ) from error

    def _function(self, experiment: str, demand: Demand, kind: _Kind) -> Any:
        """Return the remote function with the leaf's demand. Cached, because making it is slow."""
        key = (experiment, kind)
        if key not in self._functions:
            options = demand.options()
            if kind.stays:
                options["scheduling_strategy"] = self._stay
                options.pop("label_selector", None)  # the Ray node has been checked
            options["name"] = experiment[:_NAME_CHARS]
            self._functions[key] = (self._once if kind.alone else self._many).options(**options)
        return self._functions[key]

    def _on_joined(self, nodes: list[RayNode]) -> None:
        """Watch these Ray nodes too, as Ray may start waiting leaves there."""
        for attempt, demand in self._attempts.items():
            attempt.on_joined([node.node_id for node in able_nodes(demand, nodes)])

    def _on_gone(self, nodes: list[RayNode]) -> None:
        """Fail the leaves that were on these Ray nodes; Ray may take a minute to do so."""
        gone = {node.node_id: node for node in nodes}
        for attempt in self._attempts:
            attempt.on_gone(gone)

    async def _refined(self, loss: PlacementLost) -> PlacementLost:
        """Distinguish a drained or preempted Ray node from one that died."""
        if loss.failure.kind is not FailureKind.NODE_LOST:
            return loss
        loop = asyncio.get_running_loop()
        try:
            taken = await loop.run_in_executor(self._threads, self._cluster.taken_nodes)
        except Exception:  # noqa: BLE001 - the head is gone as well
            return loss
        for node_id, how in taken.items():
            if node_id in loss.failure.message:
                return PlacementLost(taken_failure(loss.failure, how), is_crash=False)
        return loss
