"""The executor `ray`: submits leaves to a Ray cluster, and waits for their ends."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from scythe.errors import ExecutorUnavailable, LeafFailed
from scythe.executor import Capacity, NoCallbacks, WorkerCallbacks, closed_failure
from scythe.leaf.faults import Reruns
from scythe.outcomes import LeafCall, LeafFailure, LeafReply
from scythe.processes.waiting import to_the_end
from scythe_ray.cluster.capacity import ClusterCapacity
from scythe_ray.cluster.cluster import Cluster
from scythe_ray.config.resources import RayNode, demand_of
from scythe_ray.config.settings import RaySettings
from scythe_ray.on_node.scratch import sweep_scratch
from scythe_ray.on_node.task import UsedProcess
from scythe_ray.submit.failures import lost_failure
from scythe_ray.submit.session import Session
from scythe_ray.submit.submission import PlacementLost, ProcessFault

_THREADS = 32
_BACKOFF = 0.5  # seconds before a leaf is submitted again, doubled each time
_LONGEST_BACKOFF = 10.0
_RECONNECT_WAIT = (
    120.0  # seconds for which a leaf waits for a lost cluster, then goes back to Hatchet
)
_RECONNECT_FIRST = 1.0  # seconds, the first pause between two tries to attach
_RECONNECT_LONGEST = 30.0
logger = logging.getLogger("scythe.ray")


class RayExecutor:
    """Runs leaves on a cluster. It belongs to the loop that first uses it.

    Args:
        cluster: The cluster, attached.
        nodes: Its Ray nodes.
        offer: Computes the capacity.
        settings: The settings.
        host: The worker.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: Sequence[RayNode],
        offer: ClusterCapacity,
        settings: RaySettings,
        host: WorkerCallbacks | None = None,
    ) -> None:
        self._host = host or NoCallbacks()
        self._cluster = cluster
        self._offer = offer
        self._settings = settings
        self._capacity = offer.capacity(nodes)
        self._threads = ThreadPoolExecutor(_THREADS, "scythe-ray")
        self._session = Session(cluster, nodes, settings, self._threads)
        self._attached = asyncio.Event()
        self._attached.set()
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._lost: LeafFailure | None = None  # set while the cluster is lost

    @property
    def capacity(self) -> Capacity:
        """The capacity that the cluster has now."""
        return self._capacity

    async def astart(self) -> None:
        """Start to watch the cluster."""
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._watch_head())

    async def run(self, call: LeafCall) -> LeafReply:
        """Run one attempt of a leaf, see `scythe.executor.Executor`.

        A leaf whose process crashed runs once more in another one; a second crash is the leaf's
        failure. A leaf whose Ray node was lost is submitted again, up to
        SCYTHE_RAY_SYSTEM_RETRIES times.
        """
        await self.astart()
        crashed = False
        losses = 0
        anew = False
        reruns = Reruns(call)
        while True:
            try:
                await self._until_attached()
                demand = demand_of(call, self._offer.selectable)
                outcome = await self._session.run(reruns.call, demand, anew=anew)
            except ProcessFault as fault:
                reruns.add(fault.failure, fault.journal)
                continue
            except PlacementLost as loss:
                again = crashed if loss.is_crash else losses >= self._settings.SYSTEM_RETRIES
                self._check_away()
                if again:
                    raise _for_good(loss) from None
                logger.warning("Leaf %s: %s. Submitting it again.", call.leaf_id, loss)
                if loss.is_crash:
                    crashed = True
                else:
                    await asyncio.sleep(min(_LONGEST_BACKOFF, _BACKOFF * 2**losses))
                    losses += 1
                    self._check_away()  # the whole cluster may be known to be lost by now
                continue
            if isinstance(outcome, LeafFailure):
                raise LeafFailed(outcome)
            if not isinstance(outcome, UsedProcess):
                return outcome
            anew = True

    async def aclose(self) -> None:
        """End the running leaves and leave the cluster; end it if it was started here."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await to_the_end(self._closing)

    @property
    def cluster(self) -> Cluster:
        """The present cluster, or the last one."""
        return self._cluster

    def _check_away(self) -> None:
        """Fail a leaf if a cluster of others is lost, so that another worker takes it."""
        if self._lost is not None and not self._cluster.is_own:
            raise ExecutorUnavailable(self._lost) from None

    async def _until_attached(self) -> None:
        try:
            async with asyncio.timeout(_RECONNECT_WAIT):
                await self._attached.wait()
        except TimeoutError:
            raise ExecutorUnavailable(lost_failure("its head does not answer")) from None
        if self._closing is not None:
            raise ExecutorUnavailable(closed_failure())
        if self._lost is not None:  # lost for good
            raise ExecutorUnavailable(self._lost)

    async def _watch_head(self) -> None:
        """Attach again whenever the cluster is lost, or stop the worker."""
        loop = asyncio.get_running_loop()
        while True:
            why = await self._session.watch(self._see)
            address = self._cluster.address
            logger.error("The Ray cluster at %s is lost: %s.", address, why)
            self._attached.clear()
            self._host.offer(taking=False)
            self._lost = lost_failure(why)
            await self._session.give_up(self._lost)
            # Leave at once, because Ray aborts this process when another head answers.
            left = await loop.run_in_executor(self._threads, self._cluster.leave)
            if self._settings.ON_CLUSTER_LOSS == "exit":
                self._attached.set()  # wake waiting leaves, which then see that it is lost
                self._host.leave(
                    f"The Ray cluster at {address} is lost ({why}), and the worker stops because "
                    "of SCYTHE_RAY_ON_CLUSTER_LOSS=exit. Start it again when Ray is back."
                )
                return
            if not left:
                self._host.start_anew(
                    f"The Ray cluster at {address} is lost ({why}), and Ray cannot leave it."
                )
            await self._attach_again()
            self._host.offer(taking=True)

    def _see(self, nodes: Sequence[RayNode]) -> None:
        """Update the capacity; keep the last one while no node is visible."""
        if self._offer.used(nodes):
            self._capacity = self._offer.capacity(nodes)

    async def _attach_again(self) -> None:
        loop = asyncio.get_running_loop()
        said = ""
        delay = _RECONNECT_FIRST
        while not self._attached.is_set():
            await asyncio.sleep(delay)
            delay = min(_RECONNECT_LONGEST, 2 * delay)
            try:
                self._cluster = await self._another_cluster()
                nodes = await loop.run_in_executor(self._threads, self._cluster.nodes)
            except Exception as error:  # noqa: BLE001 - the next try may succeed
                if said != str(error):
                    said = str(error)
                    logger.warning("%s", said)
                continue
            await loop.run_in_executor(
                self._threads, sweep_scratch
            )  # folders of leaves that died with it
            self._session = Session(self._cluster, nodes, self._settings, self._threads)
            self._offer.follow(self._cluster)
            self._see(nodes)
            self._lost = None
            self._attached.set()
            logger.warning("Attached to the Ray cluster at %s again.", self._cluster.address)

    async def _another_cluster(self) -> Cluster:
        loop = asyncio.get_running_loop()
        if not self._cluster.is_own:
            return await loop.run_in_executor(self._threads, self._cluster.attach_again)
        await loop.run_in_executor(self._threads, self._cluster.close)
        # In this thread although it blocks the loop: a cluster ends with the thread that starts it.
        return self._cluster.attach_again()

    async def _close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._attached.set()  # wake waiting leaves, which then see that it is closed
        await self._session.close(closed_failure())
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._cluster.close)
        self._threads.shutdown(wait=False)


def _for_good(loss: PlacementLost) -> LeafFailed | ExecutorUnavailable:
    if not loss.is_crash:
        return ExecutorUnavailable(loss.failure)
    message = f"{loss.failure.message}, also when it ran again"
    return LeafFailed(dataclasses.replace(loss.failure, message=message))
