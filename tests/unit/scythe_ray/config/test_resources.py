"""Labels of workers, resources of nodes, and what a leaf asks of them."""

from __future__ import annotations

import pytest

from scythe.errors import WorkerStartError
from scythe.outcomes import CodeRef, LeafCall, LeafResources, StoreConfig
from scythe_ray.config.resources import (
    Demand,
    RayNode,
    able_nodes,
    backed_labels,
    check_labels,
    demand_of,
    explain_infeasible,
    own_resources,
    selectable_labels,
)

SMALL = RayNode("a" * 8, "small", "10.0.0.1", {"CPU": 2.0, "memory": 4e9, "node:10.0.0.1": 1.0})
GPU = RayNode("b" * 8, "gpu", "10.0.0.2", {"CPU": 4.0, "GPU": 1.0, "high_memory": 4.0})


def call(resources: LeafResources | None = None, **labels: str) -> LeafCall:
    return LeafCall(
        leaf_id="00000001",
        code=CodeRef("e", "m", "f"),
        spec="{}",
        experiment_id="e/v1.0.0/now",
        store=StoreConfig("b"),
        resources=resources or LeafResources(),
        labels=labels,
    )


@pytest.mark.parametrize(
    ("resources", "labels", "expected"),
    [
        (LeafResources(), {}, {"CPU": 1}),
        (LeafResources(), {"has_gpu": "yes"}, {"CPU": 1, "GPU": 1}),
        (LeafResources(gpus=0.25), {"has_gpu": "yes"}, {"CPU": 1, "GPU": 0.25}),
        (LeafResources(), {"has_gpu": "no", "region": "eu"}, {"CPU": 1}),
        (
            LeafResources(cpus=4, memory=10),
            {"high_memory": "yes", "high_cpu": "yes"},
            {"CPU": 4, "memory": 10, "high_memory": 1, "high_cpu": 1},
        ),
        (
            LeafResources(custom={"high_memory": 3}),
            {"high_memory": "yes"},
            {"CPU": 1, "high_memory": 3},
        ),
        (LeafResources(cpus=0, custom={"license": 0.5}), {}, {"license": 0.5}),
    ],
)
def test_required_labels_and_resources_become_a_demand(
    resources: LeafResources, labels: dict[str, str], expected: dict[str, float]
) -> None:
    assert demand_of(call(resources, **labels)).amounts == expected


def test_a_demand_becomes_options_of_a_ray_task() -> None:
    demand = Demand({"CPU": 2, "GPU": 0.5, "memory": 10.0, "high_memory": 1, "license": 2})
    assert demand.options() == {
        "num_cpus": 2,
        "num_gpus": 0.5,
        "memory": 10,
        "resources": {"high_memory": 1, "license": 2},
    }
    nothing = {"num_cpus": 0, "num_gpus": 0, "memory": None, "resources": None}
    assert Demand({}).options() == nothing


def test_a_node_is_able_by_its_total_of_each_resource() -> None:
    nodes = [SMALL, GPU]
    assert able_nodes(Demand({"CPU": 2}), nodes) == nodes
    assert able_nodes(Demand({"CPU": 3}), nodes) == [GPU]
    # The sum over the cluster is no help: a leaf runs on one node.
    assert able_nodes(Demand({"CPU": 6}), nodes) == []
    assert able_nodes(Demand({"CPU": 1, "GPU": 1, "license": 1}), nodes) == []


def test_an_infeasible_demand_names_the_nearest_node_and_what_it_lacks() -> None:
    text = explain_infeasible(Demand({"CPU": 3, "GPU": 2}), [SMALL, GPU])
    assert "needs 3 CPU, 2 GPU" in text
    assert "gpu (10.0.0.2), has only 1 GPU" in text
    assert "a node that has 2 GPU" in text
    assert "4.00 GB memory" in explain_infeasible(Demand({"memory": 5e9}), [SMALL])
    assert "no live node" in explain_infeasible(Demand({"CPU": 1}), [])


FAST = RayNode("f" * 8, "fast", "10.0.0.6", {"CPU": 1.0}, {"pool": "fast", "ray.io/node-id": "f"})
SLOW = RayNode("9" * 8, "slow", "10.0.0.7", {"CPU": 1.0}, {"pool": "slow", "high_memory": "yes"})


@pytest.mark.parametrize(
    ("wanted", "able"),
    [
        ("fast", [FAST]),
        ("!fast", [SLOW, SMALL]),
        ("in(fast, slow)", [FAST, SLOW]),
        ("!in(fast,slow)", [SMALL]),
        ("medium", []),
    ],
)
def test_a_leaf_can_select_nodes_by_rays_labels(wanted: str, able: list[RayNode]) -> None:
    demand = demand_of(call(LeafResources(node_labels={"pool": wanted})))
    assert able_nodes(demand, [FAST, SLOW, SMALL]) == able
    assert demand.options()["label_selector"] == {"pool": wanted}
    lacks_it = next(node for node in (FAST, SLOW, SMALL) if node not in able)
    text = explain_infeasible(demand, [lacks_it])
    assert f"needs 1 CPU, pool={wanted}" in text
    assert f"{lacks_it.name}, has no label pool={wanted}" in text


def test_labels_of_nodes_become_labels_of_workers_and_select_nodes() -> None:
    assert backed_labels([FAST]) == {"pool": "fast"}
    assert backed_labels([SLOW, GPU]) == {"pool": "slow", "high_memory": "yes", "has_gpu": "yes"}
    assert backed_labels([FAST, SLOW]) == {"high_memory": "yes"}, "a worker has one value"
    # What a resource stands for is taken of it; what only a label says chooses the node.
    assert selectable_labels([SLOW, GPU]) == {"pool": "slow"}
    assert selectable_labels([SLOW]) == {"pool": "slow", "high_memory": "yes"}
    needs = call(pool="slow", high_memory="yes", region="eu")
    assert demand_of(needs, selectable_labels([SLOW])) == Demand(
        {"CPU": 1.0}, {"pool": "slow", "high_memory": "yes"}
    )
    assert demand_of(needs, selectable_labels([SLOW, GPU])) == Demand(
        {"CPU": 1.0, "high_memory": 1.0}, {"pool": "slow"}
    )
    check_labels({"high_memory": "yes"}, [SLOW], own=False)
    with pytest.raises(WorkerStartError, match="`high_memory`"):
        check_labels(
            {"high_memory": "yes"}, [RayNode("n", "n", "n", {}, {"high_memory": "no"})], own=False
        )


def test_flags_become_resources_of_a_cluster_that_is_started() -> None:
    flags = {"high_memory": "yes", "has_gpu": "yes"}
    assert own_resources(flags, {}, 4) == {"high_memory": 4.0}
    assert own_resources(flags, {"high_memory": 1.0, "license": 2.0}, 4) == {
        "high_memory": 1.0,
        "license": 2.0,
    }
    assert own_resources({}, {}, 4) == {}


def test_resources_of_nodes_become_labels() -> None:
    assert backed_labels([SMALL]) == {}
    assert backed_labels([SMALL, GPU]) == {"has_gpu": "yes", "high_memory": "yes"}


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("has_gpu", ["`has_gpu`", "small (10.0.0.1)", "`GPU`", "--num-gpus=1"]),
        ("high_cpu", ["`high_cpu`", "small (10.0.0.1)", "--resources='{\"high_cpu\": 1}'"]),
    ],
)
def test_a_flag_that_nothing_backs_is_refused(label: str, words: list[str]) -> None:
    with pytest.raises(WorkerStartError) as caught:
        check_labels({label: "yes"}, [SMALL], own=False)
    assert [word for word in words if word not in str(caught.value)] == []
    check_labels({"has_gpu": "yes", "high_memory": "yes"}, [SMALL, GPU], own=False)
    check_labels({"has_gpu": "no"}, [SMALL], own=False)


def test_a_gpu_that_a_cluster_of_its_own_does_not_find_can_be_declared() -> None:
    with pytest.raises(WorkerStartError, match="`has_gpu`.*SCYTHE_RAY_NUM_GPUS"):
        check_labels({"has_gpu": "yes"}, [SMALL], own=True)


def test_custom_resources_are_those_that_somebody_named() -> None:
    node = RayNode(
        "e", "e", "e", {**GPU.resources, "object_store_memory": 1.0, "accelerator_type:A100": 1.0}
    )
    assert node.custom == {"high_memory": 4.0}
