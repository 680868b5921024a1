"""The parts of a worker: which processes it has, and what each of them serves.

A part is one process with one Hatchet worker. Leaves and scatter nodes are served by different
parts, as the engine refills a worker that offers both kinds of slots only once a second; and so are
leaves that different resources limit (see `scythe.leaf_classes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from scythe.errors import WorkerStartError
from scythe.labels import required_labels
from scythe.leaf_classes import LeafClass, class_of, limit_of
from scythe.outcomes import CodeRef
from scythe.parts.suspects import Suspect

Role = Literal["leaf", "fan", "tasks"]
WIND_DOWN = 10.0  # seconds for delivering results and leaving the engine, after the last leaf


@dataclass(frozen=True, slots=True)
class PartPlan:
    """The work of one worker process, as plain data that another process can read.

    Attributes:
        name: The name of its Hatchet worker.
        number: Its place among the parts of the worker, from 0 on.
        role: `leaf` for experiments, `fan` for scatter nodes, `tasks` for nothing but the user's
            own Hatchet tasks and workflows.
        executor: Where leaves run.
        slots: Slots that the user asked for, or None for as many as the place has.
        default_slots: Slots of a part without an executor.
        durable_slots: Slots for durable tasks.
        labels: Labels that the worker's flags promise.
        shutdown_timeout: Seconds that running leaves get when the worker stops.
        experiments: Where the process finds the experiments.
        workflows: Where it finds the user's Hatchet tasks and workflows.
        classes: The classes of leaves that the worker has, by rank; none if they are not divided.
        leaf_class: Which of them the part serves.
        ahead: The numbers of the parts whose leaves go first where CPUs are short.
        guest: Whether it runs leaves in the place that the first leaf part found.
        shared: What that part said of the place.
        needs: The labels without which no leaf comes, so that the part is not started.
        environment: Variables by which it finds the place of a part that died.
        suspects: Leaves that ran in it when it died before, by their id.
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
class PartReady:
    """The engine knows the part's worker; sent again when its place offers something else.

    Attributes:
        slots: Leaves and other ordinary tasks that it takes at one time.
        source: Where that number comes from.
        labels: The labels of its Hatchet worker.
        place: Where its leaves run.
        shared: What other parts need to run leaves there too.
        environment: Variables by which a part that takes its place finds that again.
        engine: Version and address of the engine; only when it is sent for the first time.
    """

    slots: int
    source: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    place: str = ""
    shared: dict[str, str] = field(default_factory=dict[str, str])
    environment: dict[str, str] = field(default_factory=dict[str, str])
    engine: str = ""


@dataclass(frozen=True, slots=True)
class PartFailed:
    """The part cannot go on.

    Attributes:
        message: Why, and what to do.
        away: Whether the engine, or the place of its leaves, is away, which is worth waiting for.
        for_good: Whether the worker as a whole is to stop.
    """

    message: str
    away: bool = False
    for_good: bool = False


@dataclass(frozen=True, slots=True)
class PartStopping:
    """The part takes nothing new.

    Attributes:
        running: Leaves that still run in it.
    """

    running: int


PartMessage = PartReady | PartFailed | PartStopping


@dataclass(frozen=True, slots=True)
class Work:
    """The experiments and workflows that a worker was asked to serve.

    Attributes:
        experiments: All registered experiments.
        tasks: Hatchet tasks that were added with `ExperimentRegistry.Include`.
        workflows: What was passed as `additional_workflows`.
    """

    experiments: Sequence[Any] = ()
    tasks: Sequence[Any] = ()
    workflows: Sequence[Any] = ()


def plan_parts(base: PartPlan, work: Work, *, fan: bool, leaf: bool) -> list[PartPlan]:
    """Divide the work among parts. The first one carries the worker's name.

    Args:
        base: What all parts have in common.
        work: What the worker serves.
        fan: Whether the worker handles scatter and gather.
        leaf: Whether it handles experiments.

    Raises:
        WorkerStartError: There is nothing that the worker could serve.
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


def _leaf_plans(base: PartPlan, experiments: Sequence[Any]) -> list[PartPlan]:
    """Return a part for each class of leaves; those that only CPUs limit come first."""
    groups: dict[tuple[str, float], list[Any]] = {}
    for item in experiments:
        limit = limit_of(item.options)
        groups.setdefault((limit.resource, limit.share), []).append(item)
    many = {
        class_of([limit_of(item.options) for item in items]): items for items in groups.values()
    }
    # The processes of the executor `local` are of one kind, and one slot means one leaf at a time.
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


def _leaf_plan(base: PartPlan, items: Sequence[Any], leaf_class: LeafClass | None) -> PartPlan:
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
    base: PartPlan, plans: list[PartPlan], workflows: Sequence[Any]
) -> list[PartPlan]:
    """Let the first part serve these too, where its slots are CPUs, else one of their own."""
    refs = _refs(workflows)
    first = plans[0] if plans else None
    if first is not None and (first.leaf_class is None or not first.leaf_class.resource):
        return [replace(first, workflows=refs), *plans[1:]]
    named = [
        replace(plan, name=f"{base.name}{plan.leaf_class.suffix}") if plan.leaf_class else plan
        for plan in plans
    ]
    return [replace(base, role="tasks", workflows=refs), *named]


def _numbered(plans: Sequence[PartPlan]) -> list[PartPlan]:
    """Give the parts their numbers, and tell them which others go first."""
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
    from scythe.parts.workflow_ref import workflow_ref

    return tuple(workflow_ref(item) for item in workflows)


def _check_work(work: Work, own: Sequence[Any], *, fan: bool, leaf: bool) -> None:
    if leaf and not (work.experiments or own):
        raise WorkerStartError(
            "No experiment is registered in this process: import the modules that register them "
            "(`from experiments import *`) before the worker starts, or set "
            "SCYTHE_WORKER_DOES_LEAF=false for a worker that handles scatter and gather only."
        )
    if not (fan or leaf or own):
        raise WorkerStartError(
            "This worker would do nothing: set SCYTHE_WORKER_DOES_FAN or SCYTHE_WORKER_DOES_LEAF "
            "to true, or pass `additional_workflows`."
        )


def _by_name(items: Sequence[Any]) -> list[Any]:
    """Return the items, each once."""
    return list({str(item.name): item for item in items}.values())


def _by_kind(workflows: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the ordinary tasks and workflows, and those with durable tasks."""
    if not workflows:
        return [], []
    from scythe.engine.client import has_durable_tasks

    kinds: tuple[list[Any], list[Any]] = ([], [])
    for workflow in workflows:
        kinds[has_durable_tasks(workflow)].append(workflow)
    return kinds
