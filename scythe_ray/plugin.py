"""The entry point of the executor `ray`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scythe.errors import WorkerStartError
from scythe.executor import ExecutorRequest
from scythe.processes.spawning import is_preparing
from scythe_ray.cluster.capacity import ClusterCapacity
from scythe_ray.cluster.driver import import_ray
from scythe_ray.config.resources import CPU, GPU, RayNode, check_labels, show_amount
from scythe_ray.config.settings import ray_settings

if TYPE_CHECKING:
    from scythe_ray.cluster.cluster import Cluster
    from scythe_ray.executor import RayExecutor

logger = logging.getLogger("scythe.ray")


def open_executor(request: ExecutorRequest) -> RayExecutor:
    """Attach to the Ray cluster of this node or of `SCYTHE_RAY_ADDRESS`, or start a local one.

    Raises:
        WorkerStartError: Ray cannot be used; the message says what to do.
    """
    if is_preparing():
        raise WorkerStartError(
            "The worker's script starts its worker whenever it is imported. Put the start below "
            "`if __name__ == '__main__':`."
        )
    if request.slots is not None and request.slots < 1:
        raise WorkerStartError(f"SLOTS must be at least 1, got {request.slots}.")
    _check_ray()
    import_ray()
    from scythe_ray.cluster.attach import join_cluster, open_cluster
    from scythe_ray.executor import RayExecutor

    settings = ray_settings()
    if request.shared:
        cluster = join_cluster(settings, request.shared)
    else:
        cluster = open_cluster(settings, request.slots, request.labels)
    is_foreign = not (request.shared or cluster.is_own)
    if is_foreign and (settings.RESOURCES or settings.NUM_GPUS is not None):
        logger.warning(
            "SCYTHE_RAY_RESOURCES and SCYTHE_RAY_NUM_GPUS are for clusters that a worker starts; "
            "this one was started by `ray start`, which takes --resources and --num-gpus."
        )
    try:
        nodes = cluster.nodes()
        offer = ClusterCapacity(request, settings, cluster)
        used = offer.used(nodes)
        if not request.shared:
            check_labels(request.labels, used, own=cluster.is_own)
            _log(cluster, nodes, used)
        offer.check(nodes)
        return RayExecutor(cluster, nodes, offer, settings, request.host)
    except BaseException:
        cluster.close()
        raise


def _check_ray() -> None:
    from importlib.util import find_spec

    loaded: Any = sys.modules.get("ray")
    if loaded is not None and loaded.is_initialized():
        raise WorkerStartError(
            "Ray is in use in this process already, but a worker connects by itself. Leave out "
            "`ray.init()` before its start, and name the cluster in SCYTHE_RAY_ADDRESS."
        )
    if find_spec("ray") is None:
        raise WorkerStartError(
            "executor='ray' needs the package `ray`, which is not installed here. Run "
            "`pip install 'scythe-ray[ray]'`, or use executor='local'."
        )


def _log(cluster: Cluster, nodes: Sequence[RayNode], used: Sequence[RayNode]) -> None:
    custom = sorted({name for node in nodes for name in node.custom})
    totals = {
        name: sum(node.resources.get(name, 0.0) for node in nodes) for name in (CPU, GPU, *custom)
    }
    logger.info(
        "%s Ray %s at %s: %d node(s), %s",
        "Started" if cluster.is_own else "Attached to",
        cluster.version,
        cluster.address,
        len(nodes),
        ", ".join(show_amount(name, amount) for name, amount in totals.items()),
    )
    if len(used) < len(nodes):
        logger.info(
            "Leaves of this worker run on this node. The other %d node(s) are used by workers that "
            "are started there, or by this one with SCYTHE_RAY_SCOPE=cluster.",
            len(nodes) - len(used),
        )
