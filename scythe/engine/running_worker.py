"""A Hatchet worker while it runs: what nothing public of the SDK tells, or does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

from scythe.engine.client import client, find_worker
from scythe.engine.lost_tasks import WorkerSight

_ID_SECONDS = 8.0  # for the engine's id, which the SDK's other process puts into a queue


def listener_of(worker: Any) -> BaseProcess | None:
    """Return the process through which the SDK talks to the engine, once it was started."""
    return worker._action_listener_process  # noqa: SLF001 - the public name only warns


def registered_id(worker: Any) -> str | None:
    """Return the engine's id of the worker, or None until the engine knows it."""
    waiting = worker._worker_id_queue  # noqa: SLF001 - nothing public tells before a task does
    with suppress(Empty):
        found = str(waiting.get_nowait())
        waiting.put(found)  # stopping takes it out
        return found
    return None


def set_taking(worker: Any, *, taking: bool) -> None:
    """Let the engine give a registered worker tasks, or none for the time being. Blocks."""
    queue = worker._worker_id_queue  # noqa: SLF001
    worker_id = queue.get(timeout=_ID_SECONDS)
    queue.put(worker_id)  # for the SDK, which takes it when the worker stops
    workers = client().workers
    (workers.unpause if taking else workers.pause)(worker_id)


def sight_of(worker: Any, renewed: int) -> WorkerSight | None:
    """Return a registered worker as the engine sees it, None where that cannot be had. Blocks."""
    worker_id = registered_id(worker)
    runner = worker._action_runner  # noqa: SLF001
    if worker_id is None or runner is None:
        return None
    contexts = runner.runner.contexts
    before = len(contexts)
    row = find_worker(worker_id)
    if row is None:
        return None
    here = max(before, len(contexts))  # the engine counted at some moment between
    slots = [kind for kind in (row.slot_config or {}).values() if kind.available is not None]
    return WorkerSight(renewed, sum(kind.limit - kind.available for kind in slots), here)


def evict_nodes(worker: Any) -> None:
    """Give the durable tasks that wait in a stopping worker back to the engine, once more.

    The engine may hand such a task to the same worker again before it has noticed the pause.
    """
    loop = worker._loop  # noqa: SLF001 - nothing public does it
    runner = worker._action_runner  # noqa: SLF001
    if loop is not None and runner is not None and loop.is_running():
        asyncio.run_coroutine_threadsafe(runner.evict_all_waiting_durable_runs(), loop)
