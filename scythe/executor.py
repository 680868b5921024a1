"""The seam between Scythe and the place where leaves run.

An executor is found by the entry-point group `scythe.executors`. The entry point names a function
`open_executor(request: ExecutorRequest) -> Executor`. It is called once, in the main thread of the
leaf worker's process, before any event loop runs, and may block (with deadlines). It raises
`WorkerStartError` with one sentence that says what to do where the executor cannot start.
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
    """The worker, as its executor sees it. Nothing here blocks, and any thread may call it."""

    def offer(self, *, taking: bool) -> None:
        """Let the engine give this worker leaves, or none for the time being."""
        ...

    def leave(self, message: str) -> None:
        """Stop the worker as a whole, with this sentence: its leaves have no place any more."""
        ...

    def start_anew(self, message: str) -> None:
        """Start this part of the worker again in another process; this sentence says why."""
        ...


class NoCallbacks:
    """In place of a worker, for an executor that is used by itself."""

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
        slots: Slots that the user asked for, or None to take what is there.
        labels: Labels that the worker's flags promise (`has_gpu`: `yes`).
        shutdown_timeout: Seconds that running leaves get when the worker stops.
        classes: The classes of leaves that the worker has, by rank. Each is served by a process of
            its own, which opens the executor for itself.
        leaf_class: The one that this executor is opened for; None for all leaves.
        shared: What the executor of the worker's first leaf process said in `Capacity.shared`;
            empty in that process.
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
        source: Where the number comes from, for the banner (`2 CPUs of this machine`).
        labels: Worker labels that the place backs; those that it backs no longer are `no`.
        place: Where leaves run, for the banner (`Ray 2.60.0 at 10.0.0.1:6379, started here`).
        cpus: CPUs that leaves of all classes may hold together, None where that is no concern.
        shared: What the worker's other processes need to run leaves in the same place.
        is_own: Whether the place ends when this executor is closed.
        environment: Variables by which a process that takes this one's place finds it again.
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
        journal: The leaves of a batch that were over before, see `scythe.leaf.journal`; None
            without a batch.
    """

    def __init__(self, journal: bytes | None = None) -> None:
        self.journal = journal
        super().__init__()


@runtime_checkable
class Executor(Protocol):
    """Runs leaves, one `run` for each try."""

    @property
    def capacity(self) -> Capacity:
        """The present capacity. Polled often; must not block."""
        ...

    async def astart(self) -> None:
        """Begin to watch the place, so that `capacity` follows it. Called before leaves come."""
        ...

    async def run(self, call: LeafCall) -> LeafReply:
        """Run one try of one leaf, or a batch (see `scythe.leaf.batch`), to its end.

        Cancelling the awaiting task ends the leaf's process with all its children, confirmed dead,
        before `CancelledError` is raised; `LeafCancelled` with the journal where it ran a batch.

        Raises:
            LeafFailed: The user's code raised, ran out of time or ended its process. Where a leaf
                of a batch did that, the error has the journal that its process has left.
            ExecutorUnavailable: The place failed, not the user's code.
        """
        ...

    async def aclose(self) -> None:
        """End all that the executor started; leaves that still run are ended too."""
        ...


ExecutorFactory = Callable[[ExecutorRequest], Executor]


def available_executors() -> dict[str, str]:
    """Return the names of the installed executors, each with the distribution that brings it."""
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
            f"Unknown executor {name!r} (installed: {known}): set `executor=` or "
            "SCYTHE_WORKER_EXECUTOR to one of these."
        )
    try:
        return points[name].load()
    except ImportError as error:
        raise WorkerStartError(
            f"Executor {name!r} cannot be loaded ({error}): run "
            f"`pip install 'scythe-ray[{name}]'` in this environment."
        ) from error


def closed_failure() -> LeafFailure:
    """Return the failure of a leaf that is still to run when the worker stops."""
    return LeafFailure(
        FailureKind.CANCELLED,
        "WorkerStopped",
        "the worker is stopping: another one can take the leaf",
        stats=LeafStats(platform.node()),
    )
