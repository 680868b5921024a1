"""The capacity of a worker process on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from scythe.errors import WorkerStartError
from scythe.executor import ExecutorRequest
from scythe.leaf_classes import LeafClass
from scythe_ray.cluster.capacity import ClusterCapacity, class_slots, divided, whole_cpus
from scythe_ray.config.resources import RayNode
from scythe_ray.config.settings import RaySettings

CPU = LeafClass()
GPU = LeafClass("has_gpu")
MEMORY = LeafClass("high_memory")


def node(name: str, **resources: float) -> RayNode:
    return RayNode(name, name, f"10.0.0.{ord(name[0])}", resources)


A = node("a", CPU=2)
B = node("b", CPU=1, GPU=1)
C = node("c", CPU=8, GPU=2, high_memory=4)
HEAD = node("h")


@dataclass
class FakeCluster:
    node_id: str = "a"
    version: str = "2"
    address: str = "10.0.0.1:6379"
    is_own: bool = False
    token_path: str | None = None
    shared: dict[str, str] = field(default_factory=dict[str, str])


def offer(
    scope: Literal["node", "cluster"] = "node",
    node_id: str = "a",
    own: bool = False,
    prefetch: int = 0,
    autoscaling: Sequence[dict[str, float]] = (),
    **request: Any,
) -> ClusterCapacity:
    settings = RaySettings(SCOPE=scope, PREFETCH=prefetch, AUTOSCALING=list(autoscaling))
    cluster: Any = FakeCluster(node_id, is_own=own, shared={"address": "10.0.0.1:6379"})
    return ClusterCapacity(ExecutorRequest(**request), settings, cluster)


def test_cpus_are_counted_whole_for_each_node() -> None:
    half = node("half", CPU=1.5)
    assert whole_cpus([A, half]) == 3
    assert whole_cpus([half, half]) == 2
    assert whole_cpus([HEAD]) == 1


@pytest.mark.parametrize(
    ("leaf_class", "nodes", "slots"),
    [
        (CPU, [A, B, HEAD], 3),
        (GPU, [A, B, C], 3),
        (GPU, [A], 0),
        (LeafClass("has_gpu", share=0.25), [B], 1),  # its one CPU
        (LeafClass("has_gpu", share=0.25, cpus=0.25), [B, C], 12),
        (LeafClass("has_gpu", share=0.4), [C], 4),
        (LeafClass("has_gpu", cpus=4), [C], 2),
        (LeafClass("has_gpu", cpus=8), [C], 1),
        (LeafClass("has_gpu", cpus=0), [B, node("d", GPU=2)], 3),
        (LeafClass("has_gpu", grain=2), [C, node("e", CPU=4, GPU=3)], 4),
        (MEMORY, [A, C], 4),
        (LeafClass("license"), [node("f", CPU=4, license=2.5)], 2),
        # Leaves of four CPUs: two on eight, none that fits on six and a half of them.
        (LeafClass(grain=4), [node("g", CPU=8), node("i", CPU=6.5)], 12),
        (LeafClass(grain=4), [A], 2),
    ],
)
def test_slots_are_what_nodes_have_of_a_resource(
    leaf_class: LeafClass, nodes: list[RayNode], slots: int
) -> None:
    assert class_slots(leaf_class, nodes) == slots


@pytest.mark.parametrize(
    ("slots", "classes", "nodes", "expected"),
    [
        (4, [GPU, CPU], [C], [2, 2]),
        (2, [GPU, CPU], [C], [1, 1]),
        (3, [GPU, MEMORY, CPU], [C], [1, 1, 1]),
        (9, [GPU, MEMORY, CPU], [C], [2, 4, 3]),
        (4, [GPU, CPU], [A], [1, 4]),  # no GPU: nothing is taken off
        (4, [CPU], [A], [4]),
        (4, [GPU], [B], [1]),
    ],
)
def test_slots_that_were_asked_for_are_divided(
    slots: int, classes: list[LeafClass], nodes: list[RayNode], expected: list[int]
) -> None:
    assert list(divided(slots, classes, nodes).values()) == expected


def test_a_worker_offers_its_node_or_all() -> None:
    here = offer().capacity([A, B, C])
    assert (here.slots, here.cpus, here.labels) == (2, 2.0, {})
    assert here.source == "2 CPUs that Ray reports for this node"
    everywhere = offer("cluster").capacity([A, B, C, HEAD])
    assert (everywhere.slots, everywhere.cpus) == (11, 11.0)
    assert everywhere.labels == {"has_gpu": "yes", "high_memory": "yes"}
    assert everywhere.source == "11 CPUs that Ray reports for 4 nodes"
    assert everywhere.shared == {"address": "10.0.0.1:6379"}


def test_a_class_offers_its_resource() -> None:
    gpus = offer("cluster", prefetch=3, leaf_class=GPU, classes=(GPU, CPU)).capacity([A, B, C])
    assert (gpus.slots, gpus.cpus) == (3, 14.0)
    assert gpus.source == "3 GPU that Ray reports for 3 nodes"
    cpus = offer("cluster", prefetch=3, leaf_class=CPU, classes=(GPU, CPU)).capacity([A, B, C])
    assert cpus.slots == 14
    assert cpus.source.endswith("for 3 nodes, 3 more by SCYTHE_RAY_PREFETCH")
    # One slot, for a leaf to be refused in: it does not require the label.
    assert offer(leaf_class=GPU).capacity([A]).slots == 1


def test_slots_that_were_asked_for_are_the_most() -> None:
    both = {"classes": (GPU, CPU), "slots": 4}
    gpus = offer("cluster", leaf_class=GPU, **both).capacity([A, B])
    cpus = offer("cluster", leaf_class=CPU, **both).capacity([A, B])
    assert [(one.slots, one.source, one.cpus) for one in (gpus, cpus)] == [
        (1, "of SLOTS=4", None),
        (3, "of SLOTS=4", None),
    ]
    assert offer(slots=4).capacity([A]).source == "SLOTS=4"
    # A cluster of its own has that many CPUs, and all of them are for whoever comes.
    own = offer(own=True, leaf_class=CPU, **both).capacity([node("a", CPU=4, GPU=1)])
    assert (own.slots, own.cpus, own.is_own) == (4, 4.0, True)


def test_a_label_is_withdrawn_when_no_node_backs_it_any_more() -> None:
    one = offer("cluster")
    assert one.capacity([A, B, C]).labels == {"has_gpu": "yes", "high_memory": "yes"}
    assert one.capacity([A, B]).labels == {"has_gpu": "yes", "high_memory": "no"}
    assert one.capacity([A]).labels == {"has_gpu": "no", "high_memory": "no"}
    assert one.capacity([A, B]).labels == {"has_gpu": "yes", "high_memory": "no"}


def test_a_label_of_a_node_backs_a_class_with_its_cpus() -> None:
    labelled = RayNode("l", "l", "10.0.0.9", {"CPU": 4.0}, {"high_memory": "yes"})
    assert class_slots(MEMORY, [labelled, A]) == 4
    assert class_slots(LeafClass("high_memory", cpus=2), [labelled]) == 2


def test_nodes_that_the_autoscaler_may_start_are_offered_to_all_of_the_cluster() -> None:
    shapes = [{"CPU": 4.0, "GPU": 2.0}]
    gpus = offer("cluster", autoscaling=shapes, leaf_class=GPU).capacity([A])
    assert (gpus.slots, gpus.labels, gpus.cpus) == (2, {"has_gpu": "yes"}, 4.0)
    assert offer("cluster", autoscaling=shapes).capacity([A]).slots == 4
    offer("cluster", autoscaling=shapes).check([HEAD])
    here = offer(autoscaling=shapes).capacity([A])
    assert (here.slots, here.labels) == (2, {})


def test_a_node_without_cpus_has_no_place_for_leaves() -> None:
    with pytest.raises(WorkerStartError, match=r"h \(10\.0\.0\.\d+\).*SCYTHE_RAY_SCOPE=cluster"):
        offer(node_id="h").check([A, HEAD])
    with pytest.raises(WorkerStartError, match="start a node with CPUs first"):
        offer("cluster").check([HEAD])
    offer("cluster").check([A, HEAD])
    offer(node_id="h", slots=2).check([HEAD])
    offer(node_id="h", leaf_class=LeafClass("license", cpus=0)).check([HEAD])
