"""Which leaves share a Hatchet worker: those that the same resource keeps from running together.

The engine hands out leaves by slots, and one worker has slots of one kind only. So leaves that need
a GPU have a worker of their own whose slots are the GPUs, and do not hold those of other leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scythe.labels import ScytheWorkerLabel, required_labels
from scythe.options import ExperimentOptions

_GPU = ScytheWorkerLabel.HAS_GPU.value
_PLENTIFUL = (ScytheWorkerLabel.HIGH_MEMORY.value, ScytheWorkerLabel.HIGH_CPU.value)
_HAS = {(label.value, label.yes) for label in ScytheWorkerLabel}
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class LeafLimit:
    """The resource that limits how many leaves of an experiment run at one time.

    Attributes:
        resource: A label of `ScytheWorkerLabel`, the name of another resource, or empty for CPUs.
        amount: What a leaf takes of it.
        cpus: CPUs that a leaf takes.
    """

    resource: str
    amount: float
    cpus: float

    @property
    def slots(self) -> int:
        """Slots that a leaf holds. It hangs on nothing but the experiment: all workers agree."""
        return max(1, math.ceil(self.amount - _EPSILON))

    @property
    def share(self) -> float:
        """Fraction of the resource that one slot uses: 1, or less where leaves share a GPU."""
        return min(1.0, self.amount) if self.resource else 1.0


@dataclass(frozen=True, slots=True)
class LeafClass:
    """Leaves with the same limit, which share a Hatchet worker.

    Attributes:
        resource: See `LeafLimit`.
        share: See `LeafLimit`.
        grain: The fewest slots that one of its leaves holds.
        cpus: The fewest CPUs that one of its leaves takes for each slot.
    """

    resource: str = ""
    share: float = 1.0
    grain: int = 1
    cpus: float = 1.0

    @property
    def suffix(self) -> str:
        """Suffix of the name of its Hatchet worker; empty for leaves that only CPUs limit."""
        name = "gpu" if self.resource == _GPU else self.resource.replace("_", "-")
        share = "" if self.share == 1 else f"-{self.share:g}"
        return f"--{name}{share}" if name else ""

    @property
    def rank(self) -> tuple[int, str, float]:
        """Its place in the order of classes: the scarcer the resource, the sooner."""
        places = {_GPU: 0, "": 9, **{name: 2 + n for n, name in enumerate(_PLENTIFUL)}}
        return places.get(self.resource, 1), self.resource, -self.share


def limit_of(options: ExperimentOptions) -> LeafLimit:
    """Return what limits the leaves of an experiment: the scarcest resource that they need."""
    given = options.resources
    needs = {name: amount for name, amount in given.custom.items() if amount > 0}
    for label, value in required_labels(options.desired_worker_labels).items():
        if (label, value) in _HAS:
            needs.setdefault(label, 1.0)
    if given.gpus > 0:
        needs[_GPU] = given.gpus
    if not needs:
        return LeafLimit("", given.cpus, given.cpus)
    resource = min(needs, key=lambda name: LeafClass(name).rank)
    return LeafLimit(resource, needs[resource], given.cpus)


def class_of(limits: Sequence[LeafLimit]) -> LeafClass:
    """Return the class of leaves that have the same resource and share."""
    return LeafClass(
        resource=limits[0].resource,
        share=limits[0].share,
        grain=min(limit.slots for limit in limits),
        cpus=min(limit.cpus / limit.slots for limit in limits),
    )
