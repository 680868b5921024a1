"""Leaves in a worker that was made with Hatchet's SDK: `hatchet.worker(...)`.

They run in the processes of an executor, as in a Scythe worker. The executor is opened once in the
worker's process.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from scythe.engine.tasks import TaskRun
from scythe.executor import Executor, ExecutorRequest, load_executor_factory
from scythe.messages import LeafInput
from scythe.worker_processes.leaf_handler import LeafHandler


@lru_cache(maxsize=1)
def open_executor() -> Executor:
    """Open the executor that `SCYTHE_WORKER_EXECUTOR` names. It ends with this process.

    Raises:
        WorkerStartError: The executor cannot start.
    """
    name = os.environ.get("SCYTHE_WORKER_EXECUTOR") or "local"
    return load_executor_factory(name)(ExecutorRequest())


@lru_cache(maxsize=256)
def _handler(experiment: Any) -> LeafHandler:
    return LeafHandler(experiment, open_executor())


async def run_leaf(experiment: Any, payload: LeafInput, run: TaskRun) -> dict[str, Any]:
    """Run one attempt of a leaf."""
    return await _handler(experiment)(payload, run)
