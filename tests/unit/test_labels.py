"""Labels."""

from __future__ import annotations

from scythe.labels import (
    DesiredWorkerLabel,
    ScytheWorkerLabel,
    read_codes,
    required_labels,
    write_codes,
)


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


def test_codes_are_one_label() -> None:
    codes = {"throw": "0123456789abcdef", "a.roof-2": "fedcba9876543210"}
    assert (
        write_codes({**codes, "unknown": ""}) == "a.roof-2=fedcba9876543210 throw=0123456789abcdef"
    )
    assert read_codes(write_codes(codes)) == codes
    assert read_codes("") == read_codes("of another version") == {}
