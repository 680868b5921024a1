"""Labels."""

from __future__ import annotations

from scythe.labels import DesiredWorkerLabel, ScytheWorkerLabel, required_labels


def test_the_labels_of_the_workers_page() -> None:
    assert [str(label) for label in ScytheWorkerLabel] == ["high_memory", "high_cpu", "has_gpu"]
    label = ScytheWorkerLabel.HAS_GPU.worker_label
    assert label == {"has_gpu": DesiredWorkerLabel(value="yes", required=True)}
    assert ScytheWorkerLabel.HAS_GPU.yes == "yes"


def test_several_labels_by_unpacking() -> None:
    labels = {
        **ScytheWorkerLabel.HAS_GPU.worker_label,
        **ScytheWorkerLabel.HIGH_MEMORY.worker_label,
        "zone": DesiredWorkerLabel(value="b", weight=5),
        "rank": DesiredWorkerLabel(value=3, required=True, comparator=1),
    }
    assert required_labels(labels) == {"has_gpu": "yes", "high_memory": "yes", "rank": "3"}
    assert required_labels(None) == {}
