"""Say why a run waits: no worker serves it, its slots are taken, the bucket takes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scythe.labels import required_labels
from scythe.scatter.models import NODE_TASK
from scythe.status import RunStatus

if TYPE_CHECKING:
    from scythe.engine.lookup import ConnectedWorker

DEFAULT_PREFIX = "scythe_experiment_"  # of experiments that were given no name
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class LeafTask:
    """Requirements of a run's leaves on a worker.

    Attributes:
        name: The name of the experiment, or of the Hatchet task.
        labels: The labels that a worker must have.
        is_alone: Whether the run is no tree but this one Hatchet workflow.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    is_alone: bool = False

    @property
    def title(self) -> str:
        """The name as the user wrote it."""
        return self.name.removeprefix(DEFAULT_PREFIX)

    @classmethod
    def of(cls, runnable: Any) -> LeafTask:
        """Return what the leaves of an experiment, or of a Hatchet task or workflow, need."""
        from scythe.engine.client import is_hatchet_workflow, task_name_of

        if hasattr(runnable, "options"):
            return cls(runnable.name, required_labels(runnable.options.desired_worker_labels))
        return cls(task_name_of(runnable), is_alone=is_hatchet_workflow(runnable))


def explain_wait(workers: Sequence[ConnectedWorker], task: LeafTask, status: RunStatus) -> str:
    """Say why a run without news waits, as far as the connected workers tell; empty if not.

    Args:
        workers: All that are connected.
        task: What its leaves need.
        status: How far it is.
    """
    if not workers:
        return f"No worker is connected. Start one that serves {task.title!r}: python main.py."
    if not task.is_alone and not any(_serves(worker, NODE_TASK) for worker in workers):
        return (
            f"No worker serves scatter nodes. {_served_by(workers)} "
            "Start one without SCYTHE_WORKER_DOES_FAN=false."
        )
    serving = [worker for worker in workers if _serves(worker, task.name)]
    if not serving:
        return (
            f"No worker serves {task.title!r}. {_served_by(workers)} "
            "Start one that imports it: python main.py."
        )
    return _explain_routing(serving, task, status)


def paused_note(experiment_id: str) -> str:
    """Say that a run is paused, and how it goes on."""
    return f"The run is paused. Go on with it: scythe resume {experiment_id}"


def serving_workers(workers: Sequence[ConnectedWorker], task: LeafTask) -> list[ConnectedWorker]:
    """Return the workers that take leaves of a task."""
    serving = [worker for worker in workers if _serves(worker, task.name)]
    return [worker for worker in serving if task.labels.items() <= worker.labels.items()]


def _explain_routing(serving: Sequence[ConnectedWorker], task: LeafTask, status: RunStatus) -> str:
    """Say why none of the workers that serve a task takes its leaves."""
    fitting = [worker for worker in serving if task.labels.items() <= worker.labels.items()]
    if not fitting:
        wanted = ", ".join(f"{name}={value}" for name, value in task.labels.items())
        return (
            f"No worker that serves {task.title!r} has the label {wanted}, which it needs. "
            f"{_count(len(serving), 'worker')} {_verb(serving, 'serves', 'serve')} it without."
        )
    taking = [worker for worker in fitting if not worker.is_paused]
    if not taking:
        return (
            f"{_count(len(fitting), 'worker')} {_verb(fitting, 'serves', 'serve')} "
            f"{task.title!r}, but {_verb(fitting, 'takes', 'take')} no leaves now: the place where "
            "leaves run is away, the worker is stopping, or it was drained (scythe workers)."
        )
    if status.running == 0 and not any(worker.free_slots for worker in taking):
        slots = sum(worker.slots for worker in taking)
        return f"All {_count(slots, 'slot')} for {task.title!r} are taken."
    return ""


def _serves(worker: ConnectedWorker, name: str) -> bool:
    return name.lower() in worker.tasks


def _served_by(workers: Sequence[ConnectedWorker]) -> str:
    """Say what the connected workers serve."""
    for_leaves = [worker for worker in workers if worker.tasks - {NODE_TASK}]
    counted = for_leaves or workers
    tasks = {task for worker in for_leaves for task in worker.tasks} - {NODE_TASK}
    names = (
        _list({task.removeprefix(DEFAULT_PREFIX) for task in tasks}) or "nothing but scatter nodes"
    )
    are = _verb(counted, "is connected; it serves", "are connected; they serve")
    return f"{_count(len(counted), 'worker')} {are} {names}."


def _list(names: Iterable[str]) -> str:
    known = [repr(name) for name in sorted(names)]
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return ", ".join(known[:_MOST_NAMES]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _verb(items: Sequence[Any], one: str, many: str) -> str:
    return one if len(items) == 1 else many
