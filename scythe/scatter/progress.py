"""Stores the counts of a scatter node in the bucket while it waits for its children."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from scythe.engine.sdk_logs import reason_of
from scythe.engine.tasks import NodeRun
from scythe.outcomes import FailureKind
from scythe.scatter.models import ScatterGatherInput, ScatterGatherResult
from scythe.scatter.stop import StopRequest
from scythe.scatter.tree import NodeTasks, RecursionMap
from scythe.status import NodeCounts, RunState, RunStatus
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store

logger = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds between two counts
_PAUSE_PER_CHILD = 0.02  # seconds: a node with many child nodes reads their counts less often
_PAUSE_PER_NODE = 0.2  # seconds: the engine takes up to 10 ms to count the tasks of a node
_BUCKET_PAUSE_PER_NODE = 0.02  # seconds: all nodes of a level ask the bucket 50 times a second
_PAUSE_BY_AGE = 0.1  # share of the node's age: a run of minutes is counted less often
_MOST_BY_AGE = 5.0  # seconds, the longest pause by age


def pause_of(tree: RecursionMap, n_children: int, age: float = 0.0) -> float:
    """Return the pause of a node between two counts.

    Args:
        tree: The node. All nodes beside it together ask the engine five times a second.
        n_children: The number of child nodes; 0 for a node that runs leaves.
        age: Seconds since the node began.

    Returns:
        Seconds.
    """
    by_age = min(_MOST_BY_AGE, _PAUSE_BY_AGE * age)
    by_nodes = _PAUSE_PER_NODE * _count_beside(tree)
    return max(_PAUSE, by_age, _PAUSE_PER_CHILD * n_children, by_nodes)


def share_of_requests(tree: RecursionMap, pause: float) -> float:
    """Return the pause between two requests of a node to the bucket.

    Args:
        tree: The node. All nodes beside it together ask the bucket 50 times a second at most.
        pause: The pause of a node with few beside it, in seconds.
    """
    return max(pause, _BUCKET_PAUSE_PER_NODE * _count_beside(tree))


def _count_beside(tree: RecursionMap) -> int:
    """Return the number of nodes on the level of this one."""
    return math.prod(step.factor for step in tree.path or [])


def too_many_failures(payload: ScatterGatherInput, failed: int) -> StopRequest | None:
    """Return why a run must end if more leaves have failed than it allows.

    Args:
        payload: The input of its root.
        failed: The number of failed leaves.
    """
    if payload.max_failures is None or failed <= payload.max_failures:
        return None
    return StopRequest(
        state="failed",
        kind=FailureKind.MAX_FAILURES,
        message=f"{_count(failed)} failed, and the run allows {payload.max_failures} "
        "(max_failures of allocate): see its errors, then retry it",
    )


def _count(failed: int) -> str:
    return "1 leaf has" if failed == 1 else f"{failed} leaves have"


class NodeProgress:
    """Counts the children of a node, once a second or less often, and stores the counts.

    The root writes `status.json`; every other node writes a small file that its parent reads.
    """

    def __init__(
        self,
        layout: RunLayout,
        store: Store,
        run: NodeRun,
        payload: ScatterGatherInput,
        tasks: NodeTasks,
    ) -> None:
        self._layout = layout
        self._store = store
        self._run = run
        self._payload = payload
        self._total = tasks.n_leaves
        self._children = [child.node for child in payload.nodes_below(tasks)]
        self._started = time.time()
        done, failed = (payload.reused if payload.is_root else None) or (0, 0)
        self._reused = NodeCounts(done=done, failed=failed)
        self._ended = NodeCounts()
        self._counts = self._reused  # never less than what a try before this one has stored
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, done: int, failed: int) -> None:
        """Count leaves of this node that have ended."""
        self._ended = self._ended.plus(NodeCounts(done=done, failed=failed))

    @property
    def failed(self) -> int:
        """Failed leaves, as far as they are counted."""
        return self._counts.failed

    @property
    def started(self) -> float:
        """Start of the node's first attempt, in seconds since 1970."""
        return self._started

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._take_up)
        await self._put()
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.stop()

    async def finish(self, result: ScatterGatherResult) -> None:
        """Store the final counts of a node below the root, after its tables."""
        await self.stop()
        self._note(result)
        await self._put()

    def status_of(self, result: ScatterGatherResult) -> RunStatus:
        """Return the final status of a run whose leaves have all ended."""
        self._note(result)
        status = self._status("done").model_copy(update={"warnings": result.warnings})
        if stop := too_many_failures(self._payload, status.failed):
            return status.model_copy(update={"state": stop.state, "message": stop.message})
        return status

    def _note(self, result: ScatterGatherResult) -> None:
        self._counts = NodeCounts(
            done=result.n_leaves - result.n_failed,
            failed=result.n_failed,
            code_mismatches=result.code_mismatches,
        )

    def _take_up(self) -> None:
        """Continue from the counts of an earlier attempt."""
        tree = self._payload.recursion_map
        if not tree.is_root:
            if data := self._store.find_bytes(self._layout.node_status(tree.node)):
                self._counts = NodeCounts.model_validate_json(data)
        elif data := self._store.find_bytes(self._layout.status):
            status = RunStatus.model_validate_json(data)
            if status.workflow_run_id == self._run.workflow_run_id:
                self._started = status.started or self._started
                self._counts = NodeCounts(done=status.done, failed=status.failed)

    async def stop(self) -> None:
        """Stop storing counts."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if (
            self._writing is not None
        ):  # a write in a thread survives cancellation; it must not overwrite the final counts
            await asyncio.wait({self._writing})

    async def _follow(self) -> None:
        tree = self._payload.recursion_map
        n_children = len(self._children)
        while True:
            await asyncio.sleep(pause_of(tree, n_children, time.time() - self._started))
            try:
                counts = self._reused.plus(await self._count()).at_least(self._counts)
                if counts != self._counts:
                    self._counts = counts
                    await self._put()
            except Exception as error:  # noqa: BLE001 - counts are optional; the run continues
                logger.warning(
                    "Cannot store the counts of the run, trying again: %s", reason_of(error)
                )

    async def _count(self) -> NodeCounts:
        if self._children:
            return await asyncio.to_thread(self._sum_children)
        # Not the engine's counts of ended tasks: a task may have run nothing, and a batch that
        # ended well may have failed leaves.
        counts = await self._run.count_children()
        return self._ended.model_copy(update={"running": counts["running"]})

    def _sum_children(self) -> NodeCounts:
        total = NodeCounts()
        for node in self._children:
            data = self._store.find_bytes(self._layout.node_status(node))
            if data:  # empty if the S3 server failed during the write
                total = total.plus(NodeCounts.model_validate_json(data))
        return total

    async def _put(self) -> None:
        self._writing = asyncio.create_task(asyncio.to_thread(self._write))
        await asyncio.shield(self._writing)

    def _write(self) -> None:
        tree = self._payload.recursion_map
        if tree.is_root:
            key = self._layout.status
            document = self._status("running").model_dump_json(indent=1)
        else:
            key = self._layout.node_status(tree.node)
            document = self._counts.model_dump_json()
        self._store.put_bytes(key, document.encode())

    def _status(self, state: RunState) -> RunStatus:
        return RunStatus(
            experiment_id=self._payload.experiment_id,
            workflow_run_id=self._run.workflow_run_id,
            state=state,
            total=self._total + self._reused.done + self._reused.failed,
            done=self._counts.done,
            failed=self._counts.failed,
            running=self._counts.running,
            started=self._started,
            code_mismatches=self._counts.code_mismatches,
            reused=self._reused.done + self._reused.failed,
        )
