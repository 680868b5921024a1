"""Divides the work of a worker among worker processes, with one Hatchet worker each.

Scatter nodes and leaves have different processes, because the engine refills a worker that offers
both kinds of slots only once a second. So have leaves that different resources limit (see
`scythe.leaf_classes`), because queue and slots belong to a Hatchet worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from scythe.errors import WorkerStartError
from scythe.labels import required_labels
from scythe.leaf_classes import LeafClass, class_of, limit_of
from scythe.outcomes import CodeRef
from scythe.worker_processes.running_leaves import Suspect

Role = Literal["leaf", "fan", "tasks"]
WIND_DOWN = 10.0  # seconds after the last leaf, to deliver results and to leave the engine


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """The work of one worker process, as plain data that another process can read.

    Attributes:
        name: The name of its Hatchet worker.
        number: Its index among the processes of the worker.
        role: `leaf` for experiments, `fan` for scatter nodes, `tasks` for only the user's own
            Hatchet tasks and workflows.
        executor: The name of the executor.
        slots: Slots that the user asked for; None for as many as the executor has.
        default_slots: Slots of a process without an executor.
        durable_slots: Slots for durable tasks.
        labels: Labels that the worker's flags promise.
        shutdown_timeout: Seconds for which running leaves may continue when the worker stops.
        experiments: References to the experiments.
        workflows: References to the user's Hatchet tasks and workflows.
        classes: The leaf classes of the worker, by rank; empty if leaves are not divided.
        leaf_class: The class that this process serves.
        ahead: The numbers of the processes whose leaves go first when CPUs are short.
        guest: Whether its leaves run where the first leaf process has found resources.
        shared: The data with which a guest attaches there.
        needs: Labels that all its leaves require. Without them, it is not started.
        environment: Variables with which a restarted process finds the place of its leaves again.
        suspects: Leaves that ran during earlier deaths of the process, by their id.
    """

    name: str
    role: Role = "leaf"
    number: int = 0
    executor: str = "local"
    slots: int | None = None
    default_slots: int = 1
    durable_slots: int = 1000
    labels: dict[str, str] = field(default_factory=dict[str, str])
    shutdown_timeout: float = 30.0
    experiments: tuple[CodeRef, ...] = ()
    workflows: tuple[CodeRef, ...] = ()
    classes: tuple[LeafClass, ...] = ()
    leaf_class: LeafClass | None = None
    ahead: tuple[int, ...] = ()
    guest: bool = False
    shared: dict[str, str] = field(default_factory=dict[str, str])
    needs: dict[str, str] = field(default_factory=dict[str, str])
    environment: dict[str, str] = field(default_factory=dict[str, str])
    suspects: dict[str, Suspect] = field(default_factory=dict[str, Suspect])

    @property
    def title(self) -> str:
        """The short name for log lines: the role, or the resource that limits its leaves."""
        return self.leaf_class.suffix.strip("-") if self.guest and self.leaf_class else self.role


@dataclass(frozen=True, slots=True)
class ProcessReady:
    """The process is registered with the engine. Sent again when its capacity changes.

    Attributes:
        slots: Leaves and other ordinary tasks that it takes at one time.
        source: The source of that number, as text.
        labels: The labels of its Hatchet worker.
        place: The place where its leaves run, as text.
        shared: The data with which guests attach to that place.
        environment: Variables with which a replacement process finds that place again.
        engine: Version and address of the engine; only in the first message.
    """

    slots: int
    source: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    place: str = ""
    shared: dict[str, str] = field(default_factory=dict[str, str])
    environment: dict[str, str] = field(default_factory=dict[str, str])
    engine: str = ""


@dataclass(frozen=True, slots=True)
class ProcessFailed:
    """The process cannot continue.

    Attributes:
        message: Why, and what to do.
        away: Whether the engine or the executor is unreachable, so that a restart may help.
        for_good: Whether the whole worker must stop.
    """

    message: str
    away: bool = False
    for_good: bool = False


@dataclass(frozen=True, slots=True)
class ProcessStopping:
    """The process is stopping and takes no new tasks.

    Attributes:
        running: Number of leaves that still run.
    """

    running: int


ProcessMessage = ProcessReady | ProcessFailed | ProcessStopping


@dataclass(frozen=True, slots=True)
class Work:
    """The experiments and workflows that a worker was asked to serve.

    Attributes:
        experiments: All registered experiments.
        tasks: Hatchet tasks that were added with `ExperimentRegistry.Include`.
        workflows: The argument `additional_workflows`.
    """

    experiments: Sequence[Any] = ()
    tasks: Sequence[Any] = ()
    workflows: Sequence[Any] = ()


def plan_processes(base: ProcessSpec, work: Work, *, fan: bool, leaf: bool) -> list[ProcessSpec]:
    """Divide the work among worker processes. The first one has the worker's name.

    Args:
        base: The settings of all processes.
        work: The work of the worker.
        fan: Whether the worker handles scatter and gather.
        leaf: Whether it handles experiments.

    Raises:
        WorkerStartError: The worker has nothing to serve.
    """
    own = _by_name([*(work.tasks if leaf else ()), *work.workflows])
    _check_work(work, own, fan=fan, leaf=leaf)
    ordinary, durable = _by_kind(own)
    if not leaf and fan:
        ordinary, durable = [], [*ordinary, *durable]
    elif not fan:
        ordinary = [*ordinary, *durable]
        durable = []
    plans = _leaf_plans(base, list(work.experiments) if leaf else [])
    if ordinary:
        plans = _with_workflows(base, plans, ordinary)
    if fan:
        name = f"{base.name}--fan" if plans else base.name
        plans.append(replace(base, name=name, role="fan", workflows=_refs(durable)))
    return _numbered(plans)


def _leaf_plans(base: ProcessSpec, experiments: Sequence[Any]) -> list[ProcessSpec]:
    """Return one process per leaf class; the class that only CPUs limit comes first."""
    groups: dict[tuple[str, float], list[Any]] = {}
    for item in experiments:
        limit = limit_of(item.options)
        groups.setdefault((limit.resource, limit.share), []).append(item)
    many = {
        class_of([limit_of(item.options) for item in items]): items for items in groups.values()
    }
    # The executor `local` has one kind of process, and one slot means one leaf at a time.
    if base.executor == "local" or base.slots == 1:
        return [_leaf_plan(base, experiments, None)] if experiments else []
    ranked = sorted(many, key=lambda one: one.rank)
    first = ranked[-1:] if ranked and not ranked[-1].resource else ranked[:1]
    rest = [one for one in ranked if one not in first]
    base = replace(base, classes=tuple(ranked))
    return [
        *(_leaf_plan(base, many[one], one) for one in first),
        *(
            replace(
                _leaf_plan(base, many[one], one),
                name=f"{base.name}{one.suffix}",
                guest=True,
                needs=_shared_needs(many[one]),
            )
            for one in rest
        ),
    ]


def _leaf_plan(
    base: ProcessSpec, items: Sequence[Any], leaf_class: LeafClass | None
) -> ProcessSpec:
    from scythe.locate import code_ref

    refs = tuple(code_ref(item) for item in items)
    return replace(base, role="leaf", experiments=refs, leaf_class=leaf_class)


def _shared_needs(items: Sequence[Any]) -> dict[str, str]:
    """Return the labels that all of these experiments require."""
    first, *others = (required_labels(item.options.desired_worker_labels) for item in items)
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _with_workflows(
    base: ProcessSpec, plans: list[ProcessSpec], workflows: Sequence[Any]
) -> list[ProcessSpec]:
    """Add these to the first process if its slots are CPUs, or else to a process of their own."""
    refs = _refs(workflows)
    first = plans[0] if plans else None
    if first is not None and (first.leaf_class is None or not first.leaf_class.resource):
        return [replace(first, workflows=refs), *plans[1:]]
    named = [
        replace(plan, name=f"{base.name}{plan.leaf_class.suffix}") if plan.leaf_class else plan
        for plan in plans
    ]
    return [replace(base, role="tasks", workflows=refs), *named]


def _numbered(plans: Sequence[ProcessSpec]) -> list[ProcessSpec]:
    """Number the processes, and set for each which others go first."""
    numbers = {plan.leaf_class: number for number, plan in enumerate(plans) if plan.leaf_class}
    return [
        replace(
            plan,
            number=number,
            ahead=tuple(
                numbers[one]
                for one in plan.classes
                if plan.leaf_class is not None and one.rank < plan.leaf_class.rank
            ),
        )
        for number, plan in enumerate(plans)
    ]


def _refs(workflows: Sequence[Any]) -> tuple[CodeRef, ...]:
    from scythe.worker_processes.workflow_ref import workflow_ref

    return tuple(workflow_ref(item) for item in workflows)


def _check_work(work: Work, own: Sequence[Any], *, fan: bool, leaf: bool) -> None:
    if leaf and not (work.experiments or own):
        raise WorkerStartError(
            "No experiment is registered in this process. Import the modules that register them "
            "(`from experiments import *`) before the worker starts, or set "
            "SCYTHE_WORKER_DOES_LEAF=false for a worker that handles only scatter and gather."
        )
    if not (fan or leaf or own):
        raise WorkerStartError(
            "This worker has nothing to do. Set SCYTHE_WORKER_DOES_FAN or SCYTHE_WORKER_DOES_LEAF "
            "to true, or pass `additional_workflows`."
        )


def _by_name(items: Sequence[Any]) -> list[Any]:
    """Return the items without duplicates."""
    return list({str(item.name): item for item in items}.values())


def _by_kind(workflows: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Split workflows into ordinary ones and those with durable tasks."""
    if not workflows:
        return [], []
    from scythe.engine.client import has_durable_tasks

    kinds: tuple[list[Any], list[Any]] = ([], [])
    for workflow in workflows:
        kinds[has_durable_tasks(workflow)].append(workflow)
    return kinds
