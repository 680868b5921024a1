"""The Hatchet client and the Hatchet worker."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError

from scythe.engine.sdk_logs import is_refusal, quiet_logger
from scythe.engine.sdk_queues import talk_less
from scythe.environment import TOKEN, refused_token, require_engine
from scythe.errors import EngineError
from scythe.processes.blocking import call_within

_CHECK_SECONDS = 8.0
_ANSWER_SECONDS = 5.0  # timeout of a request that is repeated


@lru_cache(maxsize=1)
def client() -> Any:
    """Return the Hatchet client of this process, made on first use.

    Raises:
        EngineError: There is no token, or it is invalid.
    """
    require_engine()
    from hatchet_sdk import ClientConfig, Hatchet

    try:
        return Hatchet(config=ClientConfig(logger=quiet_logger()))
    except ValidationError as error:
        reasons = "; ".join(item["msg"] for item in error.errors(include_input=False))
        raise EngineError(
            f"There is no usable Hatchet token ({reasons}). Set {TOKEN} to a token of your engine, "
            "or start the local stack with `scythe dev`."
        ) from error


def _engine_address() -> str:
    """Return the address of the engine's gRPC port."""
    return str(client().config.host_port)


def check_engine() -> str:
    """Return version and address of the engine, or raise within seconds.

    Raises:
        EngineError: It cannot be reached, does not answer, or refuses the token.
    """
    hatchet = client()
    address = _engine_address()
    host, _, port = address.rpartition(":")
    try:
        call_within(
            _CHECK_SECONDS / 2,  # covers a name service that hangs
            lambda: socket.create_connection((host, int(port)), _CHECK_SECONDS / 2).close(),
            lambda: TimeoutError("no answer"),
        )
    except (OSError, ValueError) as error:
        raise EngineError(
            f"The Hatchet engine at {address} cannot be reached ({error}). Check that it runs, "
            "and HATCHET_CLIENT_HOST_PORT; `scythe dev` starts the local stack."
        ) from error
    try:
        version = asyncio.run(asyncio.wait_for(_version(hatchet), _CHECK_SECONDS))
    except TimeoutError as error:
        raise EngineError(
            f"The Hatchet engine at {address} does not answer within {_CHECK_SECONDS:.0f} s. Check "
            "HATCHET_CLIENT_TLS_STRATEGY (`none` for an engine without TLS) and the engine's log."
        ) from error
    except Exception as error:
        raise EngineError(_explain_refusal(address, error)) from error
    client.cache_clear()  # its channel belongs to the event loop that has ended
    if version is None:
        raise EngineError(
            f"The server at {address} is not a Hatchet engine, or older than v0.78. Check "
            "HATCHET_CLIENT_HOST_PORT (the engine's gRPC port, not the dashboard's)."
        )
    return f"Hatchet {version} at {address}"


def shift_health_port(number: int) -> None:
    """Set the port of the SDK's health server, so that each process of a worker has its own.

    It listens on loopback unless HATCHET_CLIENT_WORKER_HEALTHCHECK_BIND_ADDRESS is set.

    Args:
        number: Added to HATCHET_CLIENT_WORKER_HEALTHCHECK_PORT (default 8001).
    """
    server = client().config.healthcheck
    server.port += number
    if "bind_address" not in server.model_fields_set:
        server.bind_address = "127.0.0.1"


async def _version(hatchet: Any) -> str | None:
    version = await hatchet.aio_get_engine_version()
    return str(version) if version else None


def _explain_refusal(address: str, error: Exception) -> str:
    code = getattr(error, "code", lambda: None)()
    name = getattr(code, "name", type(error).__name__)
    if name in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return refused_token(address)
    details = getattr(error, "details", lambda: str(error))()
    if name == "UNAVAILABLE":
        return (
            f"The Hatchet engine at {address} cannot be reached ({details}). Check that it "
            "runs, and HATCHET_CLIENT_HOST_PORT; `scythe dev` starts the local stack."
        )
    return (
        f"The Hatchet engine at {address} cannot be used ({name}: {details}). Check "
        "HATCHET_CLIENT_TLS_STRATEGY (`none` for an engine without TLS) and the engine's log."
    )


@contextmanager
def engine_explained() -> Generator[None]:
    """Convert errors of the engine to an `EngineError` that says what to do."""
    from grpc import RpcError

    try:
        yield
    except RpcError as error:
        raise EngineError(_explain_refusal(_engine_address(), error)) from error


def start_run(
    task_name: str, payload: BaseModel, metadata: Mapping[str, Any], priority: int | None = None
) -> Any:
    """Start one run of a task and return the SDK's reference to it.

    Args:
        task_name: The Hatchet task.
        payload: Its input.
        metadata: Metadata of the run.
        priority: Its priority in Hatchet, from 1 to 3; None for that of the task.

    Raises:
        EngineError: The engine cannot be reached, or refuses it.
    """
    stub = client().stubs.workflow(name=task_name, input_validator=type(payload))
    with engine_explained():
        return stub.run(
            payload, additional_metadata=dict(metadata), priority=priority, wait_for_result=False
        )


def register_missing(name: str, make: Callable[[], Any]) -> None:
    """Register a task or workflow with the engine unless it is registered.

    Args:
        name: Its name.
        make: Returns the SDK's object to register.

    Raises:
        EngineError: The engine cannot be reached, or refuses it.
    """
    from hatchet_sdk.clients.rest.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    hatchet = client()
    full_name = hatchet.config.apply_namespace(name)
    with suppress(ApiException, HTTPError):  # then it is registered again, which is harmless
        found = hatchet.workflows.list(workflow_name=name)
        if any(item.name == full_name for item in found.rows or []):
            return
    with engine_explained():
        hatchet._client.admin.put_workflow(make().to_proto())  # noqa: SLF001 - the public API registers only from a worker


def run_state(workflow_run_id: str) -> str:
    """Return Hatchet's state of a run: QUEUED, RUNNING, COMPLETED, FAILED or CANCELLED.

    UNKNOWN means that the engine does not answer, or does not know the run. A new run is unknown
    for a moment after its start.

    Raises:
        EngineError: The engine refuses the token.
    """
    from hatchet_sdk.clients.rest.api.workflow_runs_api import WorkflowRunsApi
    from hatchet_sdk.clients.rest.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        # `runs.get_status` searches for 20 s for a run that does not exist.
        with client().runs.client() as api:
            ask = WorkflowRunsApi(api).v1_workflow_run_get_status
            return str(ask(workflow_run_id, _request_timeout=_ANSWER_SECONDS).value)
    except (ApiException, HTTPError) as error:
        if is_refusal(error):
            raise EngineError(refused_token(_engine_address())) from error
        return "UNKNOWN"


def read_result(reference: Any) -> dict[str, Any]:
    """Return the outputs of a run that has ended, or `{"error": text}` if tasks failed.

    Raises:
        EngineError: The run was cancelled, or Hatchet does not know it.
    """
    from hatchet_sdk.exceptions import FailedTaskRunExceptionGroup

    try:
        return reference.result()
    except FailedTaskRunExceptionGroup as group:
        return {"error": "\n".join(str(error) for error in group.exceptions)}
    except ValueError as error:
        raise EngineError(
            f"Run {reference.workflow_run_id} has no result ({error}). It was cancelled, or no "
            "worker with its labels took it within its schedule timeout."
        ) from error


def cancel_run(workflow_run_id: str) -> None:
    """Ask Hatchet to cancel a run."""
    client().runs.cancel(workflow_run_id)


def has_durable_tasks(workflow: Any) -> bool:
    """Return whether a Hatchet task or workflow has durable tasks, which need durable slots."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the only way to find out
        return any(task.is_durable for task in workflow.tasks)


def task_name_of(task: Any) -> str:
    """Return the name of a Hatchet task without the namespace, which its start adds again."""
    return without_namespace(str(task.name))


def without_namespace(name: str) -> str:
    """Return the name of a Hatchet task without the namespace."""
    return name.removeprefix(client().config.namespace)


def is_hatchet_workflow(item: Any) -> bool:
    """Return whether an object is a Hatchet workflow, rather than a single task."""
    from hatchet_sdk.runnables.workflow import Workflow

    return isinstance(item, Workflow)


def is_hatchet_runnable(item: Any) -> bool:
    """Return whether an object is a Hatchet task or workflow, and not an experiment."""
    from hatchet_sdk.runnables.workflow import BaseWorkflow

    return issubclass(type(item), BaseWorkflow)


def make_worker(
    name: str,
    workflows: Sequence[Any],
    *,
    slots: int,
    durable_slots: int,
    labels: Mapping[str, str | int],
    lifespan: Callable[[], AsyncGenerator[None]] | None = None,
    waiting: Callable[[], int] = lambda: 0,
) -> Any:
    """Make a Hatchet worker. Its `start()` blocks, and ends the process with `SystemExit`.

    Args:
        name: The worker's name.
        workflows: The workflows to serve. Durable slots are offered only if these need them.
        slots: Slots for leaves and other ordinary tasks.
        durable_slots: Slots for scatter nodes and other durable tasks.
        labels: The worker's labels.
        lifespan: Runs to its `yield` before the first task, and continues after the last one.
        waiting: Returns the number of its tasks that wait in the executor.
    """
    durable = durable_slots if any(map(has_durable_tasks, workflows)) else None
    with warnings.catch_warnings():
        # The SDK announces a list of labels for v2, but its client still takes only a dict.
        warnings.simplefilter("ignore", DeprecationWarning)
        worker = client().worker(
            name=name,
            slots=slots,
            durable_slots=durable,
            labels=dict(labels),
            workflows=list(workflows),
            lifespan=lifespan,
        )
    talk_less(worker, slots + (durable or 0), waiting)
    return worker


def update_labels(worker: Any, worker_id: str, labels: Mapping[str, str]) -> None:
    """Update labels of a running worker. Labels that are left out stay unchanged.

    Raises:
        EngineError: The engine cannot be reached, or refuses it.
    """
    from hatchet_sdk.types.labels import WorkerLabel

    changed = [WorkerLabel(key=name, value=value) for name, value in labels.items()]
    with engine_explained():  # the public API needs a running task
        worker._client.dispatcher.upsert_worker_labels(worker_id, changed)  # noqa: SLF001


def find_worker(worker_id: str) -> Any:
    """Return the engine's record of a worker, or None if the engine does not answer."""
    from hatchet_sdk.clients.rest.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return client().workers.get(worker_id)
    except (ApiException, HTTPError, OSError):
        return None
