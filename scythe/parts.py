"""The parts of a worker: which processes it has, and what each of them serves.

A part is one process with one Hatchet worker. Leaves and scatter nodes are served by different
parts, as the engine refills a worker that offers both kinds of slots only once a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from scythe.errors import WorkerStartError
from scythe.outcomes import CodeRef

Role = Literal["leaf", "fan", "tasks"]
WIND_DOWN = 10.0  # seconds for delivering results and leaving the engine, after the last leaf


@dataclass(frozen=True, slots=True)
class PartPlan:
    """What a part serves, as plain data that another process can read.

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
        environment: Variables by which it finds the place of a part that died.
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
    environment: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class PartReady:
    """The engine knows the part's worker.

    Attributes:
        slots: Leaves and other ordinary tasks that it takes at one time.
        source: Where that number comes from.
        labels: The labels of its Hatchet worker.
        place: Where its leaves run.
        environment: Variables by which a part that takes its place finds that again.
    """

    slots: int
    source: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    place: str = ""
    environment: dict[str, str] = field(default_factory=dict[str, str])


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
    """What a worker was asked to serve.

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
    plans: list[PartPlan] = []
    ordinary, durable = _by_kind(own)
    if not leaf and fan:
        ordinary, durable = [], [*ordinary, *durable]
    elif not fan:
        ordinary, durable = [*ordinary, *durable], []
    experiments = list(work.experiments) if leaf else []
    if experiments or ordinary:
        from scythe.locate import code_ref
        from scythe.workflow_ref import workflow_ref

        plans.append(
            replace(
                base,
                role="leaf" if experiments else "tasks",
                experiments=tuple(code_ref(item) for item in experiments),
                workflows=tuple(workflow_ref(item) for item in ordinary),
            )
        )
    if fan:
        from scythe.workflow_ref import workflow_ref

        plans.append(
            replace(
                base,
                name=f"{base.name}--fan" if plans else base.name,
                role="fan",
                number=len(plans),
                workflows=tuple(workflow_ref(item) for item in durable),
            )
        )
    return plans


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
    from scythe.engine import has_durable_tasks

    kinds: tuple[list[Any], list[Any]] = ([], [])
    for workflow in workflows:
        kinds[has_durable_tasks(workflow)].append(workflow)
    return kinds
