"""Labels that route leaves to workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class DesiredWorkerLabel:
    """A requirement of an experiment on one label of its worker.

    It has the fields of `hatchet_sdk.labels.DesiredWorkerLabel`, which is accepted wherever this
    one is; it exists because importing the SDK costs a second in every process that runs leaves.

    Attributes:
        value: The value that the label should have.
        required: Whether a worker without it may not take the leaf.
        weight: How much a match counts where it is not required (Hatchet's default: 100).
        comparator: Hatchet's `WorkerLabelComparator` as a number (None: equal).
    """

    value: str | int
    required: bool = False
    weight: int | None = None
    comparator: int | None = None

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Return the fields, as the SDK asks for them where this is passed to a task of its own."""
        return asdict(self)


class ScytheWorkerLabel(StrEnum):
    """The labels that Scythe's workers have.

    Pass one as `desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label`, or several by
    unpacking: `{**ScytheWorkerLabel.HAS_GPU.worker_label, **other.worker_label}`.
    """

    HIGH_MEMORY = "high_memory"
    HIGH_CPU = "high_cpu"
    HAS_GPU = "has_gpu"

    @property
    def worker_label(self) -> dict[str, DesiredWorkerLabel]:
        """The label as a requirement, ready for `desired_worker_labels`."""
        return {self.value: DesiredWorkerLabel(value=self.yes, required=True)}

    @property
    def yes(self) -> str:
        """The value of the label on a worker that has what it names."""
        return "yes"


CODE_LABEL = "scythe_code"  # of a Hatchet worker: the code of the experiments that it serves


def write_codes(codes: Mapping[str, str]) -> str:
    """Return fingerprints by experiment as the value of `CODE_LABEL`."""
    return " ".join(f"{name}={code}" for name, code in sorted(codes.items()) if code)


def read_codes(value: str) -> dict[str, str]:
    """Parse the value of `CODE_LABEL`."""
    pairs = (item.rpartition("=") for item in value.split())
    return {name: code for name, _, code in pairs if name}


def required_labels(desired: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the labels that a worker must have, by name."""
    return {
        name: str(label.value)
        for name, label in (desired or {}).items()
        if getattr(label, "required", False)
    }
