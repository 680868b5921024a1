"""What the processes of a worker do: serve scatter nodes, or serve leaves through an executor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from scythe.engine import make_worker
from scythe.errors import ExecutorError
from scythe.executor import Executor
from scythe.experiment import Experiment
from scythe.labels import required_labels
from scythe.layout import RunLayout
from scythe.locate import code_ref
from scythe.messages import LeafInput, encode_failure, encode_result
from scythe.node_models import NODE_TASK, ScatterGatherInput, ScatterGatherResult
from scythe.outcomes import CodeRef, LeafCall
from scythe.settings import TimeoutSettings, store_config
from scythe.tasks import TaskRun, leaf_error, leaf_task, node_task


class LeafHandler:
    """Hands the leaves of one experiment to the executor.

    Args:
        experiment: The experiment.
        executor: Where its leaves run.
        code: How the process that runs a leaf finds the experiment.
    """

    def __init__(
        self, experiment: Experiment[Any, Any], executor: Executor, code: CodeRef | None = None
    ) -> None:
        self._experiment, self._executor = experiment, executor
        self._code = code or code_ref(experiment)
        self._labels = required_labels(experiment.options.desired_worker_labels)

    async def __call__(self, payload: LeafInput, run: TaskRun) -> dict[str, Any]:
        """Run one try of one leaf; its outcome goes back through Hatchet."""
        call = self._call(payload, run)
        try:
            result = await self._executor.run(call)
        except ExecutorError as error:
            message = encode_failure(error.failure, run.attempt, run.workflow_run_id)
            raise leaf_error(message, final=error.failure.kind.is_final) from None
        return encode_result(result, run.attempt, run.workflow_run_id)

    def _call(self, payload: LeafInput, run: TaskRun) -> LeafCall:
        store = store_config(payload.storage_settings)
        row = payload.spec_row
        specs_key = RunLayout(store.prefix, payload.experiment_id).specs
        return LeafCall(
            leaf_id=f"{payload.sort_index:08d}-{run.workflow_run_id}",
            code=self._code,
            spec=payload.spec,
            spec_row=None if row is None else (specs_key, row),
            experiment_id=payload.experiment_id,
            store=store,
            workflow_run_id=run.workflow_run_id,
            root_workflow_run_id=payload.root_workflow_run_id,
            resources=self._experiment.options.resources,
            labels=self._labels,
            timeout=self._experiment.execution_timeout.total_seconds(),
            schedule_timeout=self._experiment.schedule_timeout.total_seconds(),
            attempt=run.attempt,
        )


def leaf_worker(
    name: str,
    executor: Executor,
    experiments: Sequence[Experiment[Any, Any]],
    workflows: Sequence[Any],
    labels: Mapping[str, str | int],
    *,
    durable_slots: int = 0,
    codes: Mapping[str, CodeRef] | None = None,
) -> Any:
    """Make the Hatchet worker that serves leaves.

    Args:
        name: The worker's name.
        executor: Where leaves run; it is closed when the worker has stopped.
        experiments: The experiments whose leaves it serves.
        workflows: Further Hatchet tasks and workflows that it serves itself.
        labels: The worker's labels.
        durable_slots: Durable tasks among these workflows that it runs at one time.
        codes: Where the processes that run leaves find the experiments, by name.
    """
    places = codes or {}
    tasks = [
        leaf_task(item, LeafHandler(item, executor, places.get(item.name))) for item in experiments
    ]
    return make_worker(
        name,
        [*tasks, *workflows],
        slots=executor.capacity.slots,
        durable_slots=durable_slots,
        labels=labels,
        on_stop=executor.aclose,
    )


def fan_worker(
    name: str,
    workflows: Sequence[Any],
    *,
    slots: int,
    durable_slots: int,
    labels: Mapping[str, str | int],
    on_stop: Callable[[], Awaitable[None]] | None = None,
) -> Any:
    """Make the Hatchet worker that serves scatter nodes.

    Args:
        name: The worker's name.
        workflows: Further Hatchet tasks and workflows that it serves itself.
        slots: Slots for ordinary tasks among these workflows.
        durable_slots: Scatter nodes that it runs at one time.
        labels: The worker's labels.
        on_stop: Awaited when the worker has stopped.
    """
    from scythe.scatter import run_node

    timeouts = TimeoutSettings()
    node = node_task(
        NODE_TASK,
        ScatterGatherInput,
        ScatterGatherResult,
        run_node,
        schedule_timeout=timeouts.SCATTER_GATHER_SCHEDULE,
        execution_timeout=timeouts.SCATTER_GATHER_EXECUTION,
    )
    return make_worker(
        name,
        [node, *workflows],
        slots=slots,
        durable_slots=durable_slots,
        labels=labels,
        on_stop=on_stop,
    )
