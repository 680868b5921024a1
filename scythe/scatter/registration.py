"""Registers the tasks of a run with the engine before the run starts.

Hatchet silently drops a run whose task no worker has registered yet. Once the task is registered
from here, the run waits in the queue for a worker.
"""

from __future__ import annotations

from typing import Any

from scythe.durations import NO_LIMIT
from scythe.engine.client import register_missing
from scythe.engine.tasks import NodeHandler, leaf_task, node_task
from scythe.options import LeafDefinition
from scythe.scatter.models import NODE_TASK, ScatterGatherInput, ScatterGatherResult
from scythe.settings import TimeoutSettings


def scatter_task(handler: NodeHandler) -> Any:
    """Make the Hatchet task of the scatter nodes."""
    timeouts = TimeoutSettings()
    return node_task(
        NODE_TASK,
        ScatterGatherInput,
        ScatterGatherResult,
        handler,
        schedule_timeout=timeouts.SCATTER_GATHER_SCHEDULE,
        execution_timeout=NO_LIMIT,  # the root enforces the run's limit, so that it can gather
    )


def make_nodes_known() -> None:
    """Register the task of the scatter nodes, if no worker has done so."""
    register_missing(NODE_TASK, lambda: scatter_task(_served_elsewhere))


def make_experiment_known(experiment: LeafDefinition) -> None:
    """Register an experiment, if no worker has done so."""
    register_missing(experiment.name, lambda: leaf_task(experiment, _served_elsewhere))


def make_task_known(task: Any) -> None:
    """Register a Hatchet task or workflow of the user's, if no worker has done so."""
    register_missing(str(task.name), lambda: task)


async def _served_elsewhere(*_: Any) -> Any:
    msg = "This process only registers the task and does not serve it."
    raise RuntimeError(msg)
