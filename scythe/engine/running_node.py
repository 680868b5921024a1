"""Access to private SDK state of a running scatter node.

The queries here read the engine's working tables. `run_state` and the counts read a copy, which may
stay out of date for good after an engine was killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from scythe.engine.children import Output
from scythe.engine.client import client
from scythe.engine.sdk_logs import reason_of

_ANSWER = 20.0  # seconds, the timeout of a request
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="scythe-ask")
logger = logging.getLogger(__name__)


async def start_children(context: Any, items: Sequence[Any]) -> dict[str, asyncio.Task[Output]]:
    """Start children of a node, or find them again by their keys.

    Args:
        context: The node's durable context.
        items: The SDK's trigger items, one per child.

    Returns:
        By the child's run, the durable wait for its output or exception.
    """
    started = await context._spawn_children_no_wait(list(items))  # noqa: SLF001 - the public method waits
    return {
        child.workflow_run_external_id: asyncio.create_task(_wait_for(context, child))
        for child in started
    }


@asynccontextmanager
async def waiting(context: Any) -> AsyncGenerator[None]:
    """Mark a node as waiting, so that its worker can stop and give it to another one."""
    from hatchet_sdk.worker.durable_eviction.instrumentation import aio_durable_eviction_wait

    async with aio_durable_eviction_wait(
        wait_kind="pause",
        resource_id="run",
        action_key=context.action.key,
        eviction_manager=context._durable_eviction_manager,  # noqa: SLF001
    ):
        yield


async def _wait_for(context: Any, child: Any) -> Output:
    from hatchet_sdk.exceptions import TaskRunError

    try:
        return await context._aio_result_for_spawned_child(  # noqa: SLF001
            node_id=child.node_id, branch_id=child.branch_id, workflow_name=child.workflow_name
        )
    except TaskRunError as error:
        return error


async def find_end(workflow_run_id: str) -> Output | None:
    """Ask the engine how a run ended; see `end_of`. Also None if the engine does not answer.

    A node that its worker has dropped, and that no other worker has, is given to the next worker.
    """
    details = await _ask(workflow_run_id)
    if details is None:
        return None
    await _restore_evicted(details)
    return end_of(details)


def end_of(details: Any) -> Output | None:
    """Read how a run ended from the engine's answer.

    Args:
        details: The SDK's `WorkflowRunDetail`.

    Returns:
        The outputs of its tasks by name, empty if it was cancelled; or the exception with which it
        failed; or None while it runs or will be retried.
    """
    from hatchet_sdk.exceptions import TaskRunError

    tasks = details.task_runs
    if not details.done or not tasks:
        return None
    failed = [task.error or "" for task in tasks.values() if task.status.value == "FAILED"]
    if failed:
        return TaskRunError.deserialize(failed[0] or "the task failed")
    if any(task.status.value == "CANCELLED" for task in tasks.values()):
        return {}
    return {name: task.output or {} for name, task in tasks.items()}


async def is_cancelled(workflow_run_id: str) -> bool:
    """Return whether a run was cancelled."""
    details = await _ask(workflow_run_id)
    return details is not None and details.status.value == "CANCELLED"


async def creation_of(workflow_run_id: str) -> datetime | None:
    """Return when a run was created, by the engine's clock; None if it does not answer."""
    details = await _in_thread(client().runs.get, workflow_run_id)
    return None if details is None else details.run.metadata.created_at


async def hand_on(workflow_run_id: str) -> None:
    """Give a node that its worker has dropped to the next worker at once.

    The engine itself does so only when a child ends, which may never happen again.
    """
    details = await _ask(workflow_run_id)
    if details is not None:
        await _restore_evicted(details)


async def _restore_evicted(details: Any) -> None:
    for task in details.task_runs.values():
        if task.is_evicted:
            await _in_thread(_restore, task.external_id)


def _restore(task_run_id: str) -> None:
    from hatchet_sdk.clients.rest.api.task_api import TaskApi

    with client().runs.client() as api:
        TaskApi(api).v1_task_restore(task_run_id)


async def _ask(workflow_run_id: str) -> Any:
    return await _in_thread(client().runs.get_details, workflow_run_id)


async def _in_thread(function: Any, argument: str) -> Any:
    """Call a blocking function; return None if the engine does not answer in time."""
    call = asyncio.get_running_loop().run_in_executor(_threads, function, argument)
    try:
        async with asyncio.timeout(_ANSWER):
            return await call
    except Exception as error:  # noqa: BLE001 - from gRPC, REST or the SDK; the request is repeated
        logger.warning(
            "Hatchet does not answer a request about %s, trying again later: %s",
            argument,
            reason_of(error),
        )
        return None
