"""Hatchet: the only module that uses its client and its worker."""

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
_ANSWER_SECONDS = 5.0  # for a question that is asked again


@lru_cache(maxsize=1)
def client() -> Any:
    """Return the Hatchet client of this process, made on first use.

    Raises:
        EngineError: There is no token, or it is not one.
    """
    require_engine()
    from hatchet_sdk import ClientConfig, Hatchet

    try:
        return Hatchet(config=ClientConfig(logger=quiet_logger()))
    except ValidationError as error:
        reasons = "; ".join(item["msg"] for item in error.errors(include_input=False))
        raise EngineError(
            f"There is no usable Hatchet token ({reasons}): set {TOKEN} to a token of your engine, "
            "or start the local stack with `scythe dev`."
        ) from error


def _engine_address() -> str:
    """Return the address of the engine's gRPC port."""
    return str(client().config.host_port)


def check_engine() -> str:
    """Return version and address of the engine, or say within seconds why it cannot be used.

    Raises:
        EngineError: It cannot be reached, does not answer, or refuses the token.
    """
    hatchet = client()
    address = _engine_address()
    host, _, port = address.rpartition(":")
    try:
        call_within(
            _CHECK_SECONDS / 2,  # also where the name service hangs
            lambda: socket.create_connection((host, int(port)), _CHECK_SECONDS / 2).close(),
            lambda: TimeoutError("no answer"),
        )
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
    if version is None:
        raise EngineError(
            f"What answers at {address} is no Hatchet engine, or one older than v0.78: check "
            "HATCHET_CLIENT_HOST_PORT (the engine's gRPC port, not the dashboard's)."
        )
    return f"Hatchet {version} at {address}"


def shift_health_port(number: int) -> None:
    """Give one of several workers of a machine a port of its own for the SDK's health server.

    It listens on loopback unless HATCHET_CLIENT_WORKER_HEALTHCHECK_BIND_ADDRESS says otherwise.

    Args:
        number: Added to HATCHET_CLIENT_WORKER_HEALTHCHECK_PORT (8001 where it is not set).
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
            f"The Hatchet engine at {address} cannot be reached ({details}): check that it runs, "
            "and HATCHET_CLIENT_HOST_PORT; the local stack starts with `scythe dev`."
        )
    return (
        f"The Hatchet engine at {address} cannot be used ({name}: {details}): check "
        "HATCHET_CLIENT_TLS_STRATEGY (`none` for an engine without TLS) and the engine's log."
    )


@contextmanager
def engine_explained() -> Generator[None]:
    """Raise what the engine refuses as an `EngineError` that says what to do."""
    from grpc import RpcError

    try:
        yield
    except RpcError as error:
        raise EngineError(_explain_refusal(_engine_address(), error)) from error


def start_run(task_name: str, payload: BaseModel, metadata: Mapping[str, Any]) -> Any:
    """Start one run of a task and return the SDK's reference to it.

    Raises:
        EngineError: The engine cannot be reached, or refuses it.
    """
    stub = client().stubs.workflow(name=task_name, input_validator=type(payload))
    with engine_explained():
        return stub.run(payload, additional_metadata=dict(metadata), wait_for_result=False)


def register_missing(name: str, make: Callable[[], Any]) -> None:
    """Register a task or workflow that the engine does not know.

    Args:
        name: Its name.
        make: Makes it.

    Raises:
        EngineError: The engine cannot be reached, or refuses it.
    """
    from hatchet_sdk.clients.rest.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    hatchet = client()
    full_name = hatchet.config.apply_namespace(name)
    with suppress(ApiException, HTTPError):  # then it is registered again, which does no harm
        found = hatchet.workflows.list(workflow_name=name)
        if any(item.name == full_name for item in found.rows or []):
            return
    with engine_explained():
        hatchet._client.admin.put_workflow(make().to_proto())  # noqa: SLF001 - only workers do it


def run_state(workflow_run_id: str) -> str:
    """Return Hatchet's state of a run: QUEUED, RUNNING, COMPLETED, FAILED or CANCELLED.

    It is UNKNOWN when the engine does not answer, or does not know the run: a new run is shown a
    moment after it was started.

    Raises:
        EngineError: The engine refuses the token.
    """
    from hatchet_sdk.clients.rest.api.workflow_runs_api import WorkflowRunsApi
    from hatchet_sdk.clients.rest.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        # `runs.get_status` tries for 20 s to find a run that is not there.
        with client().runs.client() as api:
            ask = WorkflowRunsApi(api).v1_workflow_run_get_status
            return str(ask(workflow_run_id, _request_timeout=_ANSWER_SECONDS).value)
    except (ApiException, HTTPError) as error:
        if is_refusal(error):
            raise EngineError(refused_token(_engine_address())) from error
        return "UNKNOWN"


def read_result(reference: Any) -> dict[str, Any]:
    """Return the outputs of a run that is over, or `{"error": text}` where tasks failed.

    Raises:
        EngineError: It was cancelled, or Hatchet does not know it.
    """
    from hatchet_sdk.exceptions import FailedTaskRunExceptionGroup

    try:
        return reference.result()
    except FailedTaskRunExceptionGroup as group:
        return {"error": "\n".join(str(error) for error in group.exceptions)}
    except ValueError as error:
        raise EngineError(
            f"Run {reference.workflow_run_id} has no result ({error}). A run is cancelled by "
            "somebody, or when no worker with its labels takes it within its schedule timeout."
        ) from error


def cancel_run(workflow_run_id: str) -> None:
    """Ask Hatchet to cancel a run."""
    client().runs.cancel(workflow_run_id)


def has_durable_tasks(workflow: Any) -> bool:
    """Return whether a Hatchet task or workflow has durable tasks, which need a fan worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there is no other way to ask
        return any(task.is_durable for task in workflow.tasks)


def task_name_of(task: Any) -> str:
    """Return the name of a Hatchet task without the namespace, which starting it adds again."""
    return str(task.name).removeprefix(client().config.namespace)


def is_hatchet_workflow(item: Any) -> bool:
    """Return whether something is a Hatchet workflow of several tasks, not a single task."""
    from hatchet_sdk.runnables.workflow import Workflow

    return isinstance(item, Workflow)


def is_hatchet_runnable(item: Any) -> bool:
    """Return whether something is a Hatchet task or workflow, and no experiment."""
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
        workflows: What it serves. Durable slots are only offered where these need them.
        slots: Slots for leaves and other ordinary tasks.
        durable_slots: Slots for scatter nodes and other durable tasks.
        labels: The worker's labels.
        lifespan: Runs to its `yield` before the first task, and on after the last one has ended.
        waiting: Tells how many of its tasks wait for a place to run.
    """
    durable = durable_slots if any(map(has_durable_tasks, workflows)) else None
    with warnings.catch_warnings():
        # The SDK wants a list of labels from v2 on, but its client only takes a dict.
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
    """Give a running worker other labels. Those that are left out stay as they are.

    Raises:
        EngineError: The engine cannot be reached, or refuses it.
    """
    from hatchet_sdk.types.labels import WorkerLabel

    changed = [WorkerLabel(key=name, value=value) for name, value in labels.items()]
    with engine_explained():  # public only in a task's context, and without labels comes no task
        worker._client.dispatcher.upsert_worker_labels(worker_id, changed)  # noqa: SLF001


def find_worker(worker_id: str) -> Any:
    """Return what the engine knows of a worker; None where it does not tell."""
    from hatchet_sdk.clients.rest.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return client().workers.get(worker_id)
    except (ApiException, HTTPError, OSError):
        return None
