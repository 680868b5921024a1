"""Computes the capacity of a worker process from the nodes of a cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scythe.errors import WorkerStartError
from scythe.executor import Capacity, ExecutorRequest
from scythe.leaf_classes import LeafClass
from scythe_ray.config.resources import (
    CPU,
    RESOURCE_OF_LABEL,
    RayNode,
    backed_labels,
    selectable_labels,
    show_amount,
)
from scythe_ray.config.settings import RaySettings

if TYPE_CHECKING:
    from scythe_ray.cluster.cluster import Cluster

_EPSILON = 1e-6


class ClusterCapacity:
    """The capacity of a cluster for the leaves of one class.

    Args:
        request: The worker's request.
        settings: The settings.
        cluster: The cluster.

    Attributes:
        selectable: Worker labels that are Ray node labels, by which Ray chooses a node.
    """

    def __init__(self, request: ExecutorRequest, settings: RaySettings, cluster: Cluster) -> None:
        self._request = request
        self._settings = settings
        self._cluster = cluster
        self._class = request.leaf_class or LeafClass()
        # An own cluster has as many CPUs as slots were requested.
        is_private = cluster.is_own or cluster.token_path is not None
        self._limit = None if is_private else request.slots
        self._labels: dict[str, str] = {}
        # A worker that uses all Ray nodes also counts those that the autoscaler may start.
        self._ceiling = settings.ceiling if settings.SCOPE == "cluster" else []
        self.selectable: dict[str, str] = {}

    def follow(self, cluster: Cluster) -> None:
        """Use another cluster, which has replaced the first one."""
        self._cluster = cluster

    def used(self, nodes: Sequence[RayNode]) -> list[RayNode]:
        """Return the Ray nodes that the worker uses: its own, or all."""
        if self._settings.SCOPE == "cluster":
            return list(nodes)
        return [node for node in nodes if node.node_id == self._cluster.node_id]

    def check(self, nodes: Sequence[RayNode]) -> None:
        """Raise if there is no CPU for leaves.

        Raises:
            WorkerStartError: No number of slots is set, and Ray has no CPUs.
        """
        used = self.used(nodes)
        if self._limit or not self._class.cpus:
            return
        if any(node.cpus for node in [*used, *self._ceiling]):
            return
        where = ", ".join(node.name for node in used) or "this node"
        other = (
            "start a node with CPUs first (`ray start --address=…`)"
            if self._settings.SCOPE == "cluster"
            else "start the worker on a node that has CPUs, set SCYTHE_RAY_SCOPE=cluster to use "
            "those of all nodes"
        )
        raise WorkerStartError(
            f"Ray has no CPUs for leaves on {where} (`--num-cpus=0`): {other}, or set "
            "SCYTHE_WORKER_DOES_LEAF=false for a worker that handles only scatter and gather."
        )

    def capacity(self, nodes: Sequence[RayNode]) -> Capacity:
        """Return the present capacity. Labels that existed before and no longer do are `no`."""
        used = self.used(nodes)
        backed = backed_labels([*used, *self._ceiling])
        self.selectable = selectable_labels(used)
        gone = {label: "no" for label in self._labels if label not in backed}
        self._labels = {**gone, **backed}
        slots, source = self._slots(used)
        most = max(map(whole_cpus, [used, *([one] for one in self._ceiling)]))
        cpus = most + self._settings.PREFETCH
        how = "started by this worker" if self._cluster.is_own else "attached"
        return Capacity(
            slots=slots,
            source=source,
            labels=dict(self._labels),
            place=f"Ray {self._cluster.version} at {self._cluster.address}, {how}",
            cpus=None if self._limit else float(cpus),
            shared=self._cluster.shared,
            is_own=self._cluster.is_own,
            environment=(
                {} if self._cluster.is_own else {"SCYTHE_RAY_ADDRESS": self._cluster.address}
            ),
            places=slots - self._prefetch,
        )

    def _slots(self, used: Sequence[RayNode]) -> tuple[int, str]:
        mine = self._class
        if self._limit is not None:
            slots = divided(self._limit, self._request.classes or (mine,), used)[mine]
            source = f"{'' if slots == self._limit else 'of '}SLOTS={self._limit}"
            return slots + self._prefetch, source + self._more
        slots = max(1, *(class_slots(mine, one) for one in [used, *([n] for n in self._ceiling)]))
        nodes = f"{len(used)} node{'' if len(used) == 1 else 's'}"
        where = "this node" if self._settings.SCOPE == "node" else nodes
        resource = RESOURCE_OF_LABEL.get(mine.resource, mine.resource) or CPU
        total = sum(node.resources.get(resource, 0.0) for node in used)
        plain = f"{slots} CPU{'s' if slots > 1 else ''}"
        has = plain if resource == CPU else show_amount(resource, total)
        return slots + self._prefetch, f"{has} that Ray reports for {where}{self._more}"

    @property
    def _prefetch(self) -> int:
        return 0 if self._class.resource else self._settings.PREFETCH

    @property
    def _more(self) -> str:
        return f", {self._prefetch} more by SCYTHE_RAY_PREFETCH" if self._prefetch else ""


def class_slots(leaf_class: LeafClass, nodes: Sequence[RayNode]) -> int:
    """Return the slots of a class on these Ray nodes, counted per node, as a leaf runs on one."""
    return sum(_slots_of(leaf_class, node) for node in nodes)


def _slots_of(leaf_class: LeafClass, node: RayNode) -> int:
    resource = RESOURCE_OF_LABEL.get(leaf_class.resource, leaf_class.resource)
    if not resource:
        slots = math.floor(node.cpus + _EPSILON)
    elif resource not in node.resources and leaf_class.resource in selectable_labels([node]):
        slots = math.floor(node.cpus / (leaf_class.cpus or 1) + _EPSILON)  # by a label of the node
    else:
        there = node.resources.get(resource, 0.0)
        whole = math.floor(there + _EPSILON)
        # A leaf with a share of a GPU gets it from a single GPU.
        slots = whole * math.floor(1 / leaf_class.share + _EPSILON)
        slots += math.floor(max(0.0, there - whole) / leaf_class.share + _EPSILON)
        if leaf_class.cpus > 0:
            slots = min(slots, math.floor(node.cpus / leaf_class.cpus + _EPSILON))
    fitting = slots - slots % leaf_class.grain
    return fitting or slots


def divided(
    slots: int, classes: Sequence[LeafClass], nodes: Sequence[RayNode]
) -> dict[LeafClass, int]:
    """Divide the user's slots among classes by rank; each class gets at least one.

    Args:
        slots: At least as many as there are classes.
        classes: The classes of the worker, by rank.
        nodes: The nodes that it uses.
    """
    shares: dict[LeafClass, int] = {}
    left = slots
    for place, one in enumerate(classes, 1):
        most = left - (len(classes) - place)
        there = class_slots(one, nodes) if one.resource else most
        shares[one] = max(1, min(there, most))
        left -= shares[one] if there else 0
    return shares


def whole_cpus(nodes: Sequence[RayNode]) -> int:
    """Return the number of leaves with one CPU that these Ray nodes run at one time, at least 1."""
    return max(1, sum(math.floor(node.cpus + _EPSILON) for node in nodes))
