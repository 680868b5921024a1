"""Builds the Hatchet tasks that a worker process serves: scatter nodes, or leaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from scythe.engine.client import make_worker
from scythe.engine.leaf_counts import CountingExecutor
from scythe.engine.tasks import leaf_task
from scythe.experiment import Experiment
from scythe.labels import CODE_LABEL, write_codes
from scythe.outcomes import CodeRef
from scythe.scatter.registration import scatter_task
from scythe.worker_processes.code_mismatch import CodeMismatch
from scythe.worker_processes.leaf_handler import LeafHandler


def leaf_worker(
    name: str,
    executor: CountingExecutor,
    experiments: Sequence[Experiment[Any, Any]],
    workflows: Sequence[Any],
    labels: Mapping[str, str | int],
    *,
    slots: int,
    durable_slots: int = 0,
    codes: Mapping[str, CodeRef] | None = None,
    step_back: Callable[[float], None] = lambda _: None,
) -> Any:
    """Make the Hatchet worker that serves leaves.

    Args:
        name: The worker's name.
        executor: Runs the leaves; it is closed when the worker has stopped.
        experiments: The experiments that it serves.
        workflows: Further Hatchet tasks and workflows that it serves itself.
        labels: The worker's labels.
        slots: Leaves that it runs at one time.
        durable_slots: Durable tasks among these workflows that it runs at one time.
        codes: References by which leaf processes find the experiments, by name.
        step_back: Pauses this worker in the engine for some seconds.
    """
    places = codes or {}
    back = CodeMismatch(step_back)
    tasks = [
        leaf_task(item, LeafHandler(item, executor, places.get(item.name), back))
        for item in experiments
    ]

    async def lifespan() -> AsyncGenerator[None]:
        await executor.astart()
        yield
        await executor.aclose()

    return make_worker(
        name,
        [*tasks, *workflows],
        slots=slots,
        durable_slots=durable_slots,
        labels={**labels, **_code_label(experiments)},
        lifespan=lifespan,
        waiting=lambda: executor.waiting,
    )


def _code_label(experiments: Sequence[Experiment[Any, Any]]) -> dict[str, str]:
    codes = write_codes({item.name: item.code.fingerprint for item in experiments})
    return {CODE_LABEL: codes} if codes else {}


def fan_worker(
    name: str,
    workflows: Sequence[Any],
    *,
    slots: int,
    durable_slots: int,
    labels: Mapping[str, str | int],
) -> Any:
    """Make the Hatchet worker that serves scatter nodes.

    Args:
        name: The worker's name.
        workflows: Further Hatchet tasks and workflows that it serves itself.
        slots: Slots for ordinary tasks among these workflows.
        durable_slots: Scatter nodes that it runs at one time.
        labels: The worker's labels.
    """
    from scythe.scatter.node_task import run_node

    node = scatter_task(run_node)
    return make_worker(
        name,
        [node, *workflows],
        slots=slots,
        durable_slots=durable_slots,
        labels=labels,
    )
