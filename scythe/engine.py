"""Hatchet: the only module that uses its client and its worker."""

from __future__ import annotations

import asyncio
import logging
import socket
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from scythe.environment import TOKEN, prepare_environment
from scythe.errors import EngineError
from scythe.experiment import Experiment
from scythe.messages import LeafInput, find_payload

_CHECK_SECONDS = 8.0
_SLICE_ITEMS = 900
_SLICE_BYTES = 3_000_000  # the engine takes messages of 4 MiB, framing included
_ENGINE_MARGIN = timedelta(seconds=60)  # our own timer ends a leaf; the engine's is a backstop

LeafHandler = Callable[[LeafInput, "TaskRun"], Awaitable[dict[str, Any]]]
NodeHandler = Callable[[Any, "NodeRun"], Awaitable[BaseModel]]


class PlainInput(BaseModel):
    """The input of a task that is not one of Scythe's: any JSON object."""

    model_config = ConfigDict(extra="allow", ser_json_inf_nan="constants")


class SdkLogger(logging.Logger):
    """The SDK's logger, which stays quiet in the processes that the SDK starts too."""

    def __reduce__(self) -> tuple[Callable[[], logging.Logger], tuple[()]]:
        return quiet_logger, ()


def quiet_logger() -> logging.Logger:
    """Return the logger for the SDK: it writes four lines for each leaf unless it is told not to."""
    logging.getLogger("hatchet").setLevel(logging.WARNING)
    logger = SdkLogger("scythe.hatchet", logging.WARNING)
    logger.parent = logging.getLogger("scythe")
    return logger


@lru_cache(maxsize=1)
def client() -> Any:
    """Return the Hatchet client of this process, made on first use.

    Raises:
        EngineError: There is no token, or it is not one.
    """
    prepare_environment()
    from hatchet_sdk import ClientConfig, Hatchet

    try:
        return Hatchet(config=ClientConfig(logger=quiet_logger()))
    except ValidationError as error:
        reasons = "; ".join(item["msg"] for item in error.errors(include_input=False))
        raise EngineError(
            f"There is no usable Hatchet token ({reasons}): set {TOKEN} to a token of your engine, "
            "or start the local stack with `scythe dev`."
        ) from error


def engine_address() -> str:
    """Return the address of the engine's gRPC port."""
    return str(client().config.host_port)


def check_engine() -> str:
    """Return the version of the engine, or say within seconds why it cannot be used.

    Raises:
        EngineError: It cannot be reached, does not answer, or refuses the token.
    """
    hatchet, address = client(), engine_address()
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CHECK_SECONDS / 2).close()
    except (OSError, ValueError) as error:
        raise EngineError(
            f"The Hatchet engine at {address} cannot be reached ({error}): check that it runs, and "
            "HATCHET_CLIENT_HOST_PORT; the local stack starts with `scythe dev`."
        ) from error
    try:
        version = asyncio.run(asyncio.wait_for(_version(hatchet), _CHECK_SECONDS))
    except TimeoutError as error:
        raise EngineError(
            f"The Hatchet engine at {address} does not answer within {_CHECK_SECONDS:.0f} s: check "
            "HATCHET_CLIENT_TLS_STRATEGY (`none` for an engine without TLS) and the engine's log."
        ) from error
    except Exception as error:
        raise EngineError(_explain_refusal(address, error)) from error
    client.cache_clear()  # its channel belongs to the event loop that has just ended
    return version


async def _version(hatchet: Any) -> str:
    version = await hatchet.aio_get_engine_version()
    return str(version or "unknown")


def _explain_refusal(address: str, error: Exception) -> str:
    code = getattr(error, "code", lambda: None)()
    name = getattr(code, "name", type(error).__name__)
    if name in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return (
            f"The Hatchet engine at {address} refuses the token: make a new one, in the engine's "
            f"dashboard or with `hatchet-admin token create`, and set {TOKEN} to it."
        )
    details = getattr(error, "details", lambda: str(error))()
    return (
        f"The Hatchet engine at {address} cannot be used ({name}: {details}): check "
        "HATCHET_CLIENT_TLS_STRATEGY (`none` for an engine without TLS) and the engine's log."
    )


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What a leaf's handler knows of its Hatchet run."""

    workflow_run_id: str
    attempt: int
    additional_metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeRun:
    """What a scatter node's handler knows of its Hatchet run, and how it starts children."""

    workflow_run_id: str
    task_run_id: str

    async def run_children(
        self,
        task_name: str,
        inputs: Sequence[BaseModel],
        keys: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> list[dict[str, Any] | BaseException]:
        """Start children and wait for all of them.

        A node that is started again after its worker died gets the same children back, by key.

        Args:
            task_name: The Hatchet task.
            inputs: One input for each child.
            keys: One key for each child, unique in this node and the same on every try.
            metadata: Metadata of all children; they also get `index`.

        Returns:
            For each child its output (empty when Hatchet cancelled it), or the exception.
        """
        stub = client().stubs.workflow(name=task_name, input_validator=type(inputs[0]))
        items = [
            stub.create_bulk_run_item(
                input=item, child_key=key, additional_metadata={**metadata, "index": number}
            )
            for number, (item, key) in enumerate(zip(inputs, keys, strict=True))
        ]
        waiting = [stub.aio_run_many(part, return_exceptions=True) for part in _slices(items)]
        parts = await asyncio.gather(*waiting)
        results = [result for part in parts for result in part]
        return [find_payload(r) if isinstance(r, dict) else r for r in results]

    async def count_children(self) -> dict[str, int]:
        """Return how many children are queued, running, completed, failed and cancelled."""
        metrics = await client().metrics.aio_get_task_metrics(
            parent_task_external_id=self.task_run_id
        )
        return cast(dict[str, int], metrics.model_dump())


def _slices(items: list[Any]) -> list[list[Any]]:
    """Cut children into messages that the engine takes."""
    slices: list[list[Any]] = []
    size = _SLICE_BYTES
    for item in items:
        length = len(item.input or "") + 600
        if size + length > _SLICE_BYTES or len(slices[-1]) >= _SLICE_ITEMS:
            slices.append([])
            size = 0
        slices[-1].append(item)
        size += length
    return slices


def leaf_task(experiment: Experiment[Any, Any], handler: LeafHandler) -> Any:
    """Make the Hatchet task that runs the leaves of an experiment."""
    from hatchet_sdk import Context

    options = experiment.options
    config = dict(options.task_config)
    if options.resources.cpus > 1:
        config.setdefault("slot_cost", int(-(-options.resources.cpus // 1)))

    async def leaf(payload: LeafInput, ctx: Context) -> dict[str, Any]:
        run = TaskRun(ctx.workflow_run_id, ctx.retry_count + 1, dict(ctx.additional_metadata or {}))
        return await handler(payload, run)

    return client().task(
        name=experiment.name,
        description=experiment.description,
        input_validator=LeafInput,
        desired_worker_labels=_sdk_labels(options.desired_worker_labels),
        schedule_timeout=experiment.schedule_timeout,
        execution_timeout=experiment.execution_timeout + _ENGINE_MARGIN,
        retries=options.retries,
        **config,
    )(_resolved(leaf, LeafInput, Context, dict[str, Any]))


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
        return await handler(payload, NodeRun(ctx.workflow_run_id, ctx.task_run_id))

    return client().durable_task(
        name=name,
        input_validator=input_type,
        schedule_timeout=schedule_timeout,
        execution_timeout=execution_timeout,
        retries=2,
        # A node that waits costs nothing here; evicted, it would replay all its children.
        eviction_policy=EvictionPolicy(ttl=None, allow_capacity_eviction=False),
    )(_resolved(node, input_type, DurableContext, output_type))


def _resolved(fn: Any, input_type: type, context_type: type, output_type: Any) -> Any:
    """Give a handler annotations that the SDK can read: classes, not text."""
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



def leaf_error(message: str, *, final: bool) -> Exception:
    """Make the exception with which a leaf's task fails, for Hatchet to retry or not."""
    from hatchet_sdk.exceptions import NonRetryableException

    return NonRetryableException(message) if final else LeafError(message)


class LeafError(Exception):
    """A leaf failed; the message holds all that is known (see `scythe.messages`)."""


def start_run(
    task_name: str, payload: BaseModel, metadata: Mapping[str, Any]
) -> Any:
    """Start one run of a task and return the SDK's reference to it."""
    stub = client().stubs.workflow(name=task_name, input_validator=type(payload))
    return stub.run(payload, additional_metadata=dict(metadata), wait_for_result=False)


async def aio_start_run(task_name: str, payload: BaseModel, metadata: Mapping[str, Any]) -> Any:
    """Start one run of a task and return the SDK's reference to it."""
    stub = client().stubs.workflow(name=task_name, input_validator=type(payload))
    return await stub.aio_run(payload, additional_metadata=dict(metadata), wait_for_result=False)


def run_state(workflow_run_id: str) -> str:
    """Return Hatchet's state of a run: QUEUED, RUNNING, COMPLETED, FAILED or CANCELLED."""
    return str(client().runs.get_status(workflow_run_id).value)


def cancel_run(workflow_run_id: str) -> None:
    """Ask Hatchet to cancel a run."""
    client().runs.cancel(workflow_run_id)


def has_durable_tasks(workflow: Any) -> bool:
    """Return whether a Hatchet task or workflow has durable tasks, which need a fan worker."""
    return any(task.is_durable for task in workflow.tasks)


def task_name_of(task: Any) -> str:
    """Return the name of a Hatchet task without the namespace, which starting it adds again."""
    return str(task.name).removeprefix(client().config.namespace)


def is_hatchet_workflow(item: Any) -> bool:
    """Return whether something is a Hatchet workflow of several tasks, not a single task."""
    from hatchet_sdk.runnables.workflow import Workflow

    return isinstance(item, Workflow)


def is_hatchet_runnable(item: Any) -> bool:
    """Return whether something is a Hatchet task or workflow."""
    from hatchet_sdk.runnables.workflow import BaseWorkflow

    return isinstance(item, BaseWorkflow)


def make_worker(
    name: str,
    workflows: Sequence[Any],
    *,
    slots: int,
    durable_slots: int,
    labels: Mapping[str, str | int],
    on_stop: Callable[[], Awaitable[None]] | None = None,
) -> Any:
    """Make a Hatchet worker. Its `start()` blocks, and ends the process with `SystemExit`.

    Args:
        name: The worker's name.
        workflows: What it serves. Slots are only offered of the kinds that these need.
        slots: Slots for leaves and other ordinary tasks.
        durable_slots: Slots for scatter nodes.
        labels: The worker's labels.
        on_stop: Awaited after the last task has ended.
    """

    async def lifespan() -> Any:
        yield None
        if on_stop is not None:
            await on_stop()

    with warnings.catch_warnings():
        # The SDK wants a list of labels from v2 on, but its client only takes a dict.
        warnings.simplefilter("ignore", DeprecationWarning)
        return client().worker(
            name=name,
            slots=slots,
            durable_slots=durable_slots,
            labels=dict(labels),
            workflows=list(workflows),
            lifespan=lifespan,
        )
