"""Scythe's Hatchet tasks: leaves and scatter nodes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NewType, cast

from pydantic import BaseModel, ConfigDict

from scythe.engine.children import OpenChildren, Output
from scythe.engine.client import cancel_run, client
from scythe.engine.run_log import RunLog
from scythe.engine.running_node import (
    creation_of,
    find_end,
    hand_on,
    is_cancelled,
    start_children,
    waiting,
)
from scythe.errors import RegistrationError
from scythe.leaf_classes import limit_of
from scythe.messages import LeafInput, find_payload
from scythe.options import LeafDefinition

_SLICE_ITEMS = 900
_SLICE_BYTES = 3_000_000  # the engine's limit for a message is 4 MiB, framing included
_NODE_RETRIES = 2
_CANCEL_SECONDS = 60.0
_SAME_FOR_ALL = "'all'"  # CEL expression: all tasks form one group
_RUN_LOG = RunLog()  # shared by all tasks of this process

Child = NewType("Child", str)  # the id of its workflow run
LeafHandler = Callable[[LeafInput, "TaskRun"], Awaitable[dict[str, Any]]]
NodeHandler = Callable[[Any, "NodeRun"], Awaitable[BaseModel]]


class PlainInput(BaseModel):
    """The input of the user's own task: any JSON object."""

    model_config = ConfigDict(extra="allow", ser_json_inf_nan="constants")


def _to_nowhere(text: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class TaskRun:
    """The Hatchet run of a leaf, as its handler sees it.

    Attributes:
        workflow_run_id: Hatchet's id of the run.
        attempt: The number of the attempt, from 1 on.
        extend: Gives the task more time in Hatchet.
        log: Sends the output of the leaf; does not block.
    """

    workflow_run_id: str
    attempt: int
    extend: Callable[[timedelta], Awaitable[None]]
    log: Callable[[str], object] = _to_nowhere


@dataclass(slots=True)
class NodeRun:
    """The Hatchet run of a scatter node, as its handler sees it; starts children.

    Attributes:
        workflow_run_id: Hatchet's id of the run.
        task_run_id: Hatchet's id of its task.
        context: The SDK's durable context.
        is_last_attempt: Whether Hatchet will not retry the node if it fails.
    """

    workflow_run_id: str
    task_run_id: str
    context: Any
    is_last_attempt: bool = False
    _waits: dict[str, asyncio.Task[Output]] = field(default_factory=dict, init=False, repr=False)
    _created: datetime | None = field(default=None, init=False, repr=False)

    async def start_children(
        self,
        task_name: str,
        inputs: Sequence[BaseModel],
        keys: Sequence[str],
        metadata: Mapping[str, Any],
        own_metadata: Sequence[Mapping[str, Any]] | None = None,
        priority: int | None = None,
    ) -> list[Child]:
        """Start children.

        A node that restarts after its worker died gets the same children again, by key, provided it
        starts them in the same order.

        Args:
            task_name: The Hatchet task.
            inputs: One input for each child.
            keys: One key for each child, unique in this node and the same in every attempt.
            metadata: Metadata of all children; they also get `index`.
            own_metadata: Further metadata of each child.
            priority: The priority of all children; None for that of the task.
        """
        stub = client().stubs.workflow(name=task_name, input_validator=type(inputs[0]))
        own = own_metadata or [{}] * len(inputs)
        items = [
            stub.create_bulk_run_item(
                input=item,
                child_key=key,
                additional_metadata={**metadata, "index": number, **more},
                priority=priority,
            )
            for number, (item, key, more) in enumerate(zip(inputs, keys, own, strict=True))
        ]
        waits: dict[str, asyncio.Task[Output]] = {}
        for part in _slices(items):
            waits |= await start_children(self.context, part)
        self._waits.update(waits)
        return [Child(run) for run in waits]

    async def outputs(
        self, children: Sequence[Child], on_end: Callable[[Child, Output], object] | None = None
    ) -> list[Output]:
        """Wait durably until these children have ended.

        Args:
            children: The children.
            on_end: Called with each child and its output as soon as it has ended.

        Returns:
            The output of each child (empty if Hatchet cancelled it), or its exception.
        """
        waits: dict[str, asyncio.Task[Output]] = {child: self._waits[child] for child in children}

        def report(run_id: str, end: Output) -> None:
            if on_end is not None:
                on_end(Child(run_id), _task_output(end))

        outputs = await OpenChildren(waits, find_end, on_end=report).outputs()
        return [_task_output(end) for end in outputs]

    def waiting(self) -> AbstractAsyncContextManager[None]:
        """Mark the node as waiting for something else than its children."""
        return waiting(self.context)

    def stop_waiting(self) -> None:
        """Cancel the waits that are still open when the node has ended.

        Not earlier: the SDK queues events of other children behind the end of a child that nobody
        waits for.
        """
        for wait in self._waits.values():
            wait.cancel()

    async def is_cancelled(self) -> bool:
        """Return whether the run was cancelled; the end of its worker also cancels this task."""
        return await is_cancelled(self.workflow_run_id)

    async def be_cancelled(self) -> None:
        """Cancel this run in Hatchet; does not return if that succeeds."""
        await asyncio.to_thread(cancel_run, self.workflow_run_id)
        await asyncio.sleep(_CANCEL_SECONDS)

    async def count_children(self) -> dict[str, int]:
        """Return the numbers of queued, running, completed, failed and cancelled children."""
        # Without a start time, the engine scans all tasks of the last day, and none before.
        self._created = self._created or await creation_of(self.workflow_run_id)
        metrics = await client().metrics.aio_get_task_metrics(
            since=self._created, parent_task_external_id=self.task_run_id
        )
        return cast("dict[str, int]", metrics.model_dump())


def _task_output(end: Output) -> Output:
    return find_payload(end) if isinstance(end, dict) else end


def _slices(items: list[Any]) -> list[list[Any]]:
    """Group children into messages within the engine's limit."""
    slices: list[list[Any]] = []
    size = _SLICE_BYTES
    for item in items:
        length = len((item.input or "").encode()) + 600
        if size + length > _SLICE_BYTES or len(slices[-1]) >= _SLICE_ITEMS:
            slices.append([])
            size = 0
        slices[-1].append(item)
        size += length
    return slices


def leaf_task(experiment: LeafDefinition, handler: LeafHandler) -> Any:
    """Make the Hatchet task that runs the leaves of an experiment."""
    from hatchet_sdk import Context

    options = experiment.options
    config = dict(options.task_config)
    slots = limit_of(options).slots
    if slots > 1:
        config.setdefault("slot_cost", slots)
    if options.max_running is not None:
        config["concurrency"] = _at_most(options.max_running)

    async def leaf(payload: LeafInput, ctx: Context) -> dict[str, Any]:
        run = TaskRun(
            workflow_run_id=ctx.workflow_run_id,
            attempt=ctx.retry_count + 1,
            extend=ctx.aio_refresh_timeout,
            log=lambda text: _RUN_LOG.send(text, ctx.log),
        )
        return await handler(payload, run)

    try:
        decorate = client().task(
            name=experiment.name,
            description=experiment.description,
            input_validator=LeafInput,
            desired_worker_labels=_sdk_labels(options.desired_worker_labels),
            schedule_timeout=_whole(experiment.schedule_timeout),
            # Scythe's own timer ends a leaf; this one allows for leaves that wait in the executor.
            execution_timeout=_whole(experiment.execution_timeout + experiment.schedule_timeout),
            retries=options.retries,
            **config,
        )
    except TypeError as error:
        raise RegistrationError(
            f"{experiment.name}: Hatchet does not accept the options {sorted(config)} of "
            f"Register() ({error}). Correct their names."
        ) from error
    return decorate(_resolved(leaf, LeafInput, Context, dict[str, Any]))


def node_task(
    name: str,
    input_type: type[BaseModel],
    output_type: type[BaseModel],
    handler: NodeHandler,
    *,
    schedule_timeout: timedelta,
    execution_timeout: timedelta,
) -> Any:
    """Make the durable Hatchet task that is a scatter node."""
    from hatchet_sdk import DurableContext
    from hatchet_sdk.runnables.eviction import EvictionPolicy

    async def node(payload: Any, ctx: DurableContext) -> Any:
        is_last = ctx.retry_count >= _NODE_RETRIES
        run = NodeRun(ctx.workflow_run_id, ctx.task_run_id, ctx, is_last)
        try:
            return await handler(payload, run)
        except asyncio.CancelledError:
            await hand_on(run.workflow_run_id)
            raise
        finally:
            run.stop_waiting()

    return client().durable_task(
        name=name,
        input_validator=input_type,
        schedule_timeout=_whole(schedule_timeout),
        execution_timeout=_whole(execution_timeout),
        retries=_NODE_RETRIES,
        # A waiting node costs nothing; after an eviction it would replay all its children.
        eviction_policy=EvictionPolicy(ttl=None, allow_capacity_eviction=False),
    )(_resolved(node, input_type, DurableContext, output_type))


def _at_most(number: int) -> Any:
    """Return the SDK's setting for at most so many tasks at once, over all workers and runs."""
    from hatchet_sdk import ConcurrencyExpression, ConcurrencyLimitStrategy

    return ConcurrencyExpression(
        expression=_SAME_FOR_ALL,
        max_runs=number,
        limit_strategy=ConcurrencyLimitStrategy.GROUP_ROUND_ROBIN,  # the others wait
    )


def _whole(limit: timedelta) -> timedelta:
    """Round a limit up to seconds, because the SDK drops fractions of a second."""
    return timedelta(seconds=math.ceil(limit.total_seconds()))


def _resolved(fn: Any, input_type: type, context_type: type, output_type: Any) -> Any:
    """Replace a handler's annotations, which are text here, by classes for the SDK."""
    fn.__annotations__ = {"payload": input_type, "ctx": context_type, "return": output_type}
    return fn


def _sdk_labels(desired: Mapping[str, Any] | None) -> list[Any]:
    from hatchet_sdk.labels import DesiredWorkerLabel
    from hatchet_sdk.types.labels import WorkerLabelComparator

    return [
        DesiredWorkerLabel(
            key=name,
            value=label.value,
            required=label.required,
            weight=label.weight,
            comparator=None
            if label.comparator is None
            else WorkerLabelComparator(int(label.comparator)),
        )
        for name, label in (desired or {}).items()
    ]


def task_error(message: str, *, final: bool) -> Exception:
    """Return the exception that fails a task, with or without retries by Hatchet."""
    from hatchet_sdk.exceptions import NonRetryableException

    return NonRetryableException(message) if final else LeafError(message)


class LeafError(Exception):
    """A leaf failed; the message encodes its failure (see `scythe.messages`)."""
