"""Access to private SDK state of a running Hatchet worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

from scythe.engine.client import client, find_worker
from scythe.engine.lost_tasks import WorkerSight

_ID_SECONDS = 8.0  # timeout for the worker's id, which the SDK's child process puts into a queue


def listener_of(worker: Any) -> BaseProcess | None:
    """Return the SDK's action-listener process, or None before its start."""
    return worker._action_listener_process  # noqa: SLF001 - the public name is deprecated


def registered_id(worker: Any) -> str | None:
    """Return the engine's id of the worker, or None until it is registered."""
    waiting = worker._worker_id_queue  # noqa: SLF001 - the public API has it only in a task
    with suppress(Empty):
        found = str(waiting.get_nowait())
        waiting.put(found)  # the SDK takes it when it stops
        return found
    return None


def set_taking(worker: Any, *, taking: bool) -> None:
    """Resume or pause a registered worker in the engine. Blocks."""
    queue = worker._worker_id_queue  # noqa: SLF001
    worker_id = queue.get(timeout=_ID_SECONDS)
    queue.put(worker_id)  # the SDK takes it when the worker stops
    workers = client().workers
    (workers.unpause if taking else workers.pause)(worker_id)


def sight_of(worker: Any, renewed: int) -> WorkerSight | None:
    """Return the task counts of a registered worker, or None if unknown. Blocks."""
    worker_id = registered_id(worker)
    runner = worker._action_runner  # noqa: SLF001
    if worker_id is None or runner is None:
        return None
    contexts = runner.runner.contexts
    before = len(contexts)
    row = find_worker(worker_id)
    if row is None:
        return None
    here = max(before, len(contexts))  # the engine counted between these two moments
    slots = [kind for kind in (row.slot_config or {}).values() if kind.available is not None]
    return WorkerSight(renewed, sum(kind.limit - kind.available for kind in slots), here)


def evict_nodes(worker: Any) -> None:
    """Return waiting durable tasks of a stopping worker to the engine once more.

    The engine may give such a task to the same worker again before it notices the pause.
    """
    loop = worker._loop  # noqa: SLF001 - there is no public method
    runner = worker._action_runner  # noqa: SLF001
    if loop is not None and runner is not None and loop.is_running():
        asyncio.run_coroutine_threadsafe(runner.evict_all_waiting_durable_runs(), loop)
