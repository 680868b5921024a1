"""Which leaves share a worker, and how many slots one holds."""

from __future__ import annotations

from typing import Any

import pytest

from scythe.labels import DesiredWorkerLabel, ScytheWorkerLabel
from scythe.leaf_classes import LeafClass, class_of, limit_of
from scythe.options import ExperimentOptions
from scythe.outcomes import LeafResources

GPU = ScytheWorkerLabel.HAS_GPU.worker_label
MEMORY = ScytheWorkerLabel.HIGH_MEMORY.worker_label


def options(labels: dict[str, Any] | None = None, **resources: Any) -> ExperimentOptions:
    return ExperimentOptions(
        desired_worker_labels=labels or {}, resources=LeafResources(**resources)
    )


@pytest.mark.parametrize(
    ("given", "resource", "slots", "share", "suffix"),
    [
        (options(), "", 1, 1, ""),
        (options(cpus=4), "", 4, 1, ""),
        (options(cpus=0.5), "", 1, 1, ""),
        (options(cpus=2.5), "", 3, 1, ""),
        (options(GPU), "has_gpu", 1, 1, "--gpu"),
        (options(gpus=2, cpus=4), "has_gpu", 2, 1, "--gpu"),
        (options(GPU, gpus=0.25), "has_gpu", 1, 0.25, "--gpu-0.25"),
        (options(MEMORY, cpus=4), "high_memory", 1, 1, "--high-memory"),
        (options(MEMORY, custom={"high_memory": 3}), "high_memory", 3, 1, "--high-memory"),
        (options(custom={"license": 1}), "license", 1, 1, "--license"),
        (options(custom={"license": 0}), "", 1, 1, ""),
        # The scarcest resource counts.
        (options({**GPU, **MEMORY}), "has_gpu", 1, 1, "--gpu"),
        (options(MEMORY, custom={"license": 1}), "license", 1, 1, "--license"),
        # A preference, and other labels, limit nothing.
        (options({"has_gpu": DesiredWorkerLabel("yes")}), "", 1, 1, ""),
        (options({"has_gpu": DesiredWorkerLabel("no", required=True)}), "", 1, 1, ""),
        (options({"region": DesiredWorkerLabel("yes", required=True)}), "", 1, 1, ""),
    ],
)
def test_the_scarcest_resource_makes_the_class(
    given: ExperimentOptions, resource: str, slots: int, share: float, suffix: str
) -> None:
    limit = limit_of(given)
    assert (limit.resource, limit.slots, limit.share) == (resource, slots, share)
    assert class_of([limit]).suffix == suffix


def test_a_class_knows_the_least_that_its_leaves_take() -> None:
    limits = [limit_of(options(gpus=2, cpus=2)), limit_of(options(gpus=4, cpus=8))]
    assert class_of(limits) == LeafClass("has_gpu", 1.0, grain=2, cpus=1.0)
    assert class_of([limit_of(options(cpus=4)), limit_of(options(cpus=6))]).grain == 4


def test_classes_are_ranked_by_how_scarce_their_resource_is() -> None:
    names = ["", "high_cpu", "license", "high_memory", "has_gpu", "disk"]
    ranked = sorted((LeafClass(name) for name in names), key=lambda one: one.rank)
    assert [one.resource for one in ranked] == [
        *("has_gpu", "disk", "license", "high_memory", "high_cpu", "")
    ]
