"""Maps worker labels and leaf demands to the resources of Ray nodes. Needs no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scythe.errors import WorkerStartError
from scythe.labels import ScytheWorkerLabel
from scythe.outcomes import LeafCall

CPU = "CPU"
GPU = "GPU"
MEMORY = "memory"
RESOURCE_OF_LABEL: Mapping[str, str] = {
    ScytheWorkerLabel.HAS_GPU.value: GPU,
    ScytheWorkerLabel.HIGH_MEMORY.value: "high_memory",
    ScytheWorkerLabel.HIGH_CPU.value: "high_cpu",
}
_RAYS_OWN = (CPU, GPU, MEMORY, "object_store_memory")
_RAYS_LABELS = "ray.io/"
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node of a Ray cluster.

    Attributes:
        node_id: Ray's id of it.
        host: Its host name.
        address: Its IP address.
        resources: All its resources, used or not; memory in bytes.
        labels: Ray's labels of it (`ray start --labels`).
    """

    node_id: str
    host: str
    address: str
    resources: Mapping[str, float] = field(default_factory=dict[str, float])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        """The name of the node in messages."""
        return f"{self.host} ({self.address})"

    @property
    def cpus(self) -> float:
        """The number of its CPUs."""
        return self.resources.get(CPU, 0.0)

    @property
    def custom(self) -> dict[str, float]:
        """Its custom resources."""
        return {
            name: amount
            for name, amount in self.resources.items()
            if name not in _RAYS_OWN and not name.startswith(("node:", "accelerator_type:"))
        }


@dataclass(frozen=True, slots=True)
class Demand:
    """The resources that Ray reserves for one leaf, and the nodes on which it may.

    Attributes:
        amounts: Amounts by the names of Ray's resources (memory in bytes).
        labels: Required labels of the Ray node, as in Ray's `label_selector`.
    """

    amounts: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def options(self) -> dict[str, Any]:
        """Return the demand as options of a Ray task."""
        custom = {name: n for name, n in self.amounts.items() if name not in (CPU, GPU, MEMORY)}
        memory = int(self.amounts.get(MEMORY, 0))
        return {
            "num_cpus": self.amounts.get(CPU, 0),
            "num_gpus": self.amounts.get(GPU, 0),
            "memory": memory or None,
            "resources": custom or None,
            **({"label_selector": dict(self.labels)} if self.labels else {}),
        }

    def lacking(self, node: RayNode) -> dict[str, float]:
        """Return the resources of which the Ray node has too little, with its amounts."""
        return {
            name: node.resources.get(name, 0.0)
            for name, amount in self.amounts.items()
            if amount > node.resources.get(name, 0.0) + _EPSILON
        }

    def fits(self, node: RayNode) -> bool:
        """Return whether the Ray node could run such a leaf if it were idle."""
        return not (self.lacking(node) or self.mismatched(node))

    def mismatched(self, node: RayNode) -> dict[str, str]:
        """Return the required labels that the Ray node lacks."""
        return {
            name: wanted
            for name, wanted in self.labels.items()
            if not _is_selected(wanted, node.labels.get(name))
        }

    def describe(self, names: Iterable[str] | None = None) -> str:
        """Return the demand, or a part of it, as text (`2 CPU, 1 high_memory, pool=fast`)."""
        chosen = {**self.amounts, **self.labels} if names is None else dict.fromkeys(names)
        words = [
            show_amount(name, self.amounts[name])
            if name in self.amounts
            else f"{name}={self.labels[name]}"
            for name in chosen
        ]
        return ", ".join(words) or "nothing"


def _is_selected(wanted: str, value: str | None) -> bool:
    """Return whether a label matches a selector of Ray."""
    negated = wanted.startswith("!")
    text = wanted.removeprefix("!")
    allowed = text[3:-1].split(",") if text.startswith("in(") and text.endswith(")") else [text]
    return (value in {one.strip() for one in allowed}) != negated


def demand_of(call: LeafCall, selectable: Mapping[str, str] | None = None) -> Demand:
    """Return the demand of a leaf: its resources, and one unit for each label that it requires.

    Args:
        call: The leaf.
        selectable: Worker labels that are labels of Ray nodes and not resources.
    """
    given = call.resources
    amounts = {CPU: given.cpus, GPU: given.gpus, MEMORY: float(given.memory), **given.custom}
    labels = {
        name: value for name, value in call.labels.items() if (selectable or {}).get(name) == value
    }
    for label, resource in RESOURCE_OF_LABEL.items():
        is_required = call.labels.get(label) == ScytheWorkerLabel(label).yes
        if is_required and label not in labels and not amounts.get(resource):
            amounts[resource] = 1.0
    return Demand(
        {name: amount for name, amount in amounts.items() if amount > 0},
        {**labels, **given.node_labels},
    )


def able_nodes(demand: Demand, nodes: Sequence[RayNode]) -> list[RayNode]:
    """Return the Ray nodes that could run such a leaf if they were idle."""
    return [node for node in nodes if demand.fits(node)]


def explain_infeasible(demand: Demand, nodes: Sequence[RayNode]) -> str:
    """Return a message with the nearest Ray node for an infeasible demand, and what it lacks."""
    if not nodes:
        return "The Ray cluster has no live node. Start one with `ray start`."
    nearest = min(nodes, key=lambda node: _distance(demand, node))
    lacking = demand.lacking(nearest)
    other = demand.mismatched(nearest)
    has = [f"only {show_amount(name, amount)}" for name, amount in lacking.items()]
    has += [f"no label {name}={wanted}" for name, wanted in other.items()]
    return (
        f"No Ray node can run this leaf, which needs {demand.describe()}. The nearest one, "
        f"{nearest.name}, has {', '.join(has)}. Start a node that has "
        f"{demand.describe([*lacking, *other])}, or ask for less with `resources=` or "
        "`desired_worker_labels=` in Register()."
    )


def _distance(demand: Demand, node: RayNode) -> tuple[int, float]:
    lacking = demand.lacking(node)
    return (
        len(lacking) + len(demand.mismatched(node)),
        sum(1 - has / demand.amounts[name] for name, has in lacking.items()),
    )


def own_resources(
    labels: Mapping[str, str], declared: Mapping[str, float], cpus: int
) -> dict[str, float]:
    """Return the custom resources of an own cluster, including those for the worker's flags.

    Args:
        labels: The labels that the worker's flags promise.
        declared: `SCYTHE_RAY_RESOURCES`.
        cpus: The cluster's CPUs; a flag means one unit per CPU unless declared otherwise.
    """
    resources = dict(declared)
    for label, resource in RESOURCE_OF_LABEL.items():
        if resource != GPU and labels.get(label) == ScytheWorkerLabel(label).yes:
            resources.setdefault(resource, float(cpus))
    return resources


def backed_labels(nodes: Sequence[RayNode]) -> dict[str, str]:
    """Return the worker labels that the resources and labels of these Ray nodes back."""
    by_resource = {
        label: ScytheWorkerLabel(label).yes
        for label, resource in RESOURCE_OF_LABEL.items()
        if any(node.resources.get(resource, 0) > 0 for node in nodes)
    }
    return {**_common_labels(nodes), **by_resource}


def selectable_labels(nodes: Sequence[RayNode]) -> dict[str, str]:
    """Return the worker labels that are only labels of these Ray nodes, and so select a node."""
    by_resource = backed_labels([replace(node, labels={}) for node in nodes])
    return {k: v for k, v in _common_labels(nodes).items() if k not in by_resource}


def _common_labels(nodes: Sequence[RayNode]) -> dict[str, str]:
    """Return the labels that these Ray nodes agree on, without Ray's own."""
    values: dict[str, set[str]] = {}
    for node in nodes:
        for name, value in node.labels.items():
            if not name.startswith(_RAYS_LABELS):
                values.setdefault(name, set()).add(value)
    return {name: next(iter(many)) for name, many in values.items() if len(many) == 1}


def check_labels(labels: Mapping[str, str], nodes: Sequence[RayNode], *, own: bool) -> None:
    """Raise if a flag of the worker promises a resource that none of these Ray nodes has.

    Args:
        labels: The labels that the worker's flags promise.
        nodes: This node, or all nodes of the cluster.
        own: Whether the worker started the cluster.

    Raises:
        WorkerStartError: Such a flag is set; the message names it and the resource.
    """
    backed = backed_labels(nodes)
    for label, resource in RESOURCE_OF_LABEL.items():
        yes = ScytheWorkerLabel(label).yes
        if labels.get(label) != yes or backed.get(label) == yes:
            continue
        if resource == GPU and own:
            raise no_gpu_here()
        where = nodes[0].name if len(nodes) == 1 else f"the {len(nodes)} nodes of the Ray cluster"
        start = (
            "`ray start --num-gpus=1 …`"
            if resource == GPU
            else f"`ray start --resources='{{\"{resource}\": 1}}' …`"
        )
        raise WorkerStartError(
            f"The flag `{label}` is set, but {where} has no Ray resource `{resource}`. Start the "
            f"node with {start}, or unset the flag."
        )


def no_gpu_here() -> WorkerStartError:
    """Return the error for a flag that promises a GPU on a machine without one."""
    return WorkerStartError(
        f"The flag `{ScytheWorkerLabel.HAS_GPU}` is set, but this machine has no visible GPU. "
        "Unset it, or declare the GPUs for Ray with SCYTHE_RAY_NUM_GPUS."
    )


def show_amount(name: str, amount: float) -> str:
    """Return an amount of a resource as text (`2 CPU`, `1.5 GB memory`)."""
    if name in (MEMORY, "object_store_memory"):
        return f"{amount / 1e9:.2f} GB {name}"
    return f"{amount:g} {name}"
