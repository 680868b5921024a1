"""The interface between Scythe and its executors.

An executor is found by the entry-point group `scythe.executors`. The entry point names a function
`open_executor(request: ExecutorRequest) -> Executor`. It is called once in each process for leaves,
in the main thread, before an event loop runs, and may block with a deadline. If it cannot start the
executor, it raises `WorkerStartError` with a message that says what to do.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from scythe.errors import WorkerStartError
from scythe.leaf_classes import LeafClass
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafReply, LeafStats

ENTRY_POINT_GROUP = "scythe.executors"


class WorkerCallbacks(Protocol):
    """The worker, as its executor sees it. No method blocks; any thread may call them."""

    def offer(self, *, taking: bool) -> None:
        """Resume or pause this worker in the engine."""
        ...

    def leave(self, message: str) -> None:
        """Stop the whole worker for this reason; its leaves can no longer run anywhere."""
        ...

    def start_anew(self, message: str) -> None:
        """Restart this worker process for this reason."""
        ...


class NoCallbacks:
    """Stands in for a worker when an executor is used by itself."""

    def offer(self, *, taking: bool) -> None:
        """Do nothing."""

    def leave(self, message: str) -> None:
        """Do nothing."""

    def start_anew(self, message: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class ExecutorRequest:
    """A worker's request to open an executor.

    Attributes:
        slots: Slots that the user asked for; None for all that the executor has.
        labels: Labels that the worker's flags promise (`has_gpu`: `yes`).
        shutdown_timeout: Seconds for which running leaves may continue when the worker stops.
        classes: The leaf classes of the worker, by rank. Each has its own worker process, which
            opens the executor for itself.
        leaf_class: The class that this executor serves; None for all leaves.
        shared: `Capacity.shared` of the worker's first leaf process; empty in that process.
        host: The worker.
    """

    slots: int | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    shutdown_timeout: float = 30.0
    classes: tuple[LeafClass, ...] = ()
    leaf_class: LeafClass | None = None
    shared: dict[str, str] = field(default_factory=dict[str, str])
    host: WorkerCallbacks = field(default_factory=NoCallbacks, repr=False)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The slots, labels and CPUs of an executor. They may change while the worker runs.

    Attributes:
        slots: Leaves that may run at one time.
        source: The source of that number, as text (`2 CPUs of this machine`).
        labels: Worker labels that the resources back; withdrawn ones are `no`.
        place: Where leaves run, as text (`Ray 2.60.0 at 10.0.0.1:6379, started here`).
        cpus: CPUs that leaves of all classes may hold together; None for no limit.
        shared: The data with which other processes of the worker attach to the same cluster.
        is_own: Whether the cluster ends when this executor is closed.
        environment: Variables with which a replacement process finds the cluster again.
        places: Leaves of one CPU that really run at one time; 0 for as many as slots.
    """

    slots: int
    source: str
    labels: dict[str, str] = field(default_factory=dict[str, str])
    place: str = ""
    cpus: float | None = None
    shared: dict[str, str] = field(default_factory=dict[str, str])
    is_own: bool = False
    environment: dict[str, str] = field(default_factory=dict[str, str])
    places: int = 0


class LeafCancelled(asyncio.CancelledError):
    """The task of a leaf was cancelled, and its process is dead.

    Attributes:
        journal: The journal of a batch (see `scythe.leaf.journal`), with the leaves that ended
            before; None without a batch.
    """

    def __init__(self, journal: bytes | None = None) -> None:
        self.journal = journal
        super().__init__()


@runtime_checkable
class Executor(Protocol):
    """Runs leaves; one call of `run` is one attempt."""

    @property
    def capacity(self) -> Capacity:
        """The present capacity. Polled often; must not block."""
        ...

    async def astart(self) -> None:
        """Start to watch the resources, so that `capacity` follows them. Called before any leaf."""
        ...

    async def run(self, call: LeafCall) -> LeafReply:
        """Run one attempt of one leaf, or of one batch (see `scythe.leaf.batch`).

        Cancelling the awaiting task kills the leaf's process with its descendants and waits until
        they are dead. It then raises `CancelledError`, or `LeafCancelled` with a batch's journal.

        Raises:
            LeafFailed: The user's code raised, ran out of time or ended its process. For a batch,
                the error has the journal.
            ExecutorUnavailable: The executor failed, not the user's code.
        """
        ...

    async def aclose(self) -> None:
        """End all that the executor started, including running leaves."""
        ...


ExecutorFactory = Callable[[ExecutorRequest], Executor]


def available_executors() -> dict[str, str]:
    """Return the names of the installed executors, with their distributions."""
    from importlib.metadata import entry_points

    return {
        point.name: (point.dist.name if point.dist else "?")
        for point in entry_points(group=ENTRY_POINT_GROUP)
    }


def load_executor_factory(name: str) -> ExecutorFactory:
    """Return the function that opens the executor called `name`.

    Raises:
        WorkerStartError: There is no such executor, or its package is not installed.
    """
    from importlib.metadata import entry_points

    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        known = ", ".join(sorted(points)) or "none"
        raise WorkerStartError(
            f"Unknown executor {name!r} (installed: {known}). Set `executor=` or "
            "SCYTHE_WORKER_EXECUTOR to one of these."
        )
    try:
        return points[name].load()
    except ImportError as error:
        raise WorkerStartError(
            f"Executor {name!r} cannot be loaded ({error}). Run "
            f"`pip install 'scythe-ray[{name}]'` in this environment."
        ) from error


def closed_failure() -> LeafFailure:
    """Return the failure of a leaf that has not run when the worker stops."""
    return LeafFailure(
        FailureKind.CANCELLED,
        "WorkerStopped",
        "the worker is stopping: another one can take the leaf",
        stats=LeafStats(platform.node()),
    )
