"""Runs the leaf tasks of a scatter node, and starts those again that have run nothing.

A worker hands a task back when its run is paused, or when it has other code than the run. The tasks
that a node starts again form a round, which the bucket has before it starts: a node that restarts
must start the same children in the same order.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from scythe.engine.run_tasks import leaf_metadata
from scythe.engine.tasks import Child, NodeRun
from scythe.messages import is_handed_back
from scythe.processes.waiting import to_the_end
from scythe.scatter.leaf_outcomes import (
    TaskOutput,
    counts_of,
    encode_ends,
    is_mismatch,
    was_cancelled,
)
from scythe.scatter.models import ScatterGatherInput
from scythe.scatter.pause import is_paused
from scythe.scatter.progress import NodeProgress, share_of_requests
from scythe.scatter.stop import RunStopped, check_goes_on
from scythe.scatter.threads import in_thread
from scythe.scatter.tree import Rows
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store

_PAUSE = 1.0  # seconds between two checks whether a run is still paused
_ROUNDS_IN_VAIN = 2  # after which leaves that meet only workers with other code have failed

MakeInputs = Callable[[Sequence[Rows]], list[BaseModel]]


class LeafTasks:
    """The leaf tasks of one scatter node.

    Args:
        node: Its Hatchet run.
        payload: Its input.
        store: The bucket of the run.
        layout: The keys of the run.
        progress: Counts the leaves that have ended.
        make_inputs: Returns the inputs of the tasks with these rows.
        metadata: The metadata of all tasks.
    """

    def __init__(
        self,
        node: NodeRun,
        payload: ScatterGatherInput,
        store: Store,
        layout: RunLayout,
        progress: NodeProgress,
        make_inputs: MakeInputs,
        metadata: dict[str, Any],
    ) -> None:
        self._node = node
        self._payload = payload
        self._store = store
        self._layout = layout
        self._progress = progress
        self._make_inputs = make_inputs
        self._metadata = metadata
        self._key = layout.node_rounds(payload.recursion_map.node)
        self._pause = share_of_requests(payload.recursion_map, _PAUSE)
        self._rounds: list[list[Rows]] = []
        # Tasks of stored rounds: each was handed back once, which is not yet known here.
        self._repeated: Counter[Rows] = Counter()
        self._ends: dict[Rows, TaskOutput] = {}
        self._handed_back: list[Rows] = []
        self._mismatched: dict[Rows, TaskOutput] = {}
        self._open: dict[Child, Rows] = {}
        self._waits: set[asyncio.Task[Any]] = set()
        self._news = asyncio.Event()
        self._queued = time.time()

    async def run(self, rows: Sequence[Rows]) -> list[tuple[Rows, TaskOutput]]:
        """Run tasks until all leaves have an outcome.

        Args:
            rows: The rows of each task.

        Returns:
            Rows and output of each task, in the order of the rows. A batch that was paused has
            several.

        Raises:
            RunStopped: The run is to stop.
        """
        try:
            known = await in_thread(self._read_rounds)
            await self._wait_while_paused()
            await self._start(rows, 1)
            for number, again in enumerate(known, 2):
                self._repeated.update(again)
                await self._start(again, number)
            self._rounds = known
            await self._run_rounds()
            if any(was_cancelled(output) for output in self._ends.values()):
                await in_thread(check_goes_on, self._store, self._layout)
        except (asyncio.CancelledError, RunStopped):
            await to_the_end(asyncio.ensure_future(in_thread(self._write_ends)))
            raise
        finally:
            for wait in self._waits:
                wait.cancel()
        return sorted(self._ends.items(), key=lambda end: end[0].start)

    async def _run_rounds(self) -> None:
        in_vain = 0
        before: set[Rows] = set()
        next_look = 0.0
        while self._open or self._handed_back or self._mismatched:
            self._news.clear()
            if self._handed_back and (not self._open or time.monotonic() >= next_look):
                if not self._open:
                    await self._wait_while_paused(next_look - time.monotonic())
                if not await self._is_paused():
                    await self._start_handed_back()
                next_look = time.monotonic() + self._pause
            if self._mismatched and not self._open and not self._handed_back:
                left = set(self._mismatched)
                in_vain = in_vain + 1 if left == before else 0
                before = left
                outputs = self._mismatched
                self._mismatched = {}
                if in_vain < _ROUNDS_IN_VAIN:
                    await self._start_again(sorted(outputs, key=lambda rows: rows.start))
                else:
                    for rows, output in outputs.items():
                        self._end(rows, output)
                continue
            await self._wait_for_news(self._pause if self._handed_back else None)

    async def _wait_while_paused(self, seconds: float = 0.0) -> None:
        """Wait for some seconds, and until the run is not paused; its worker may stop meanwhile."""
        async with self._node.waiting():
            await asyncio.sleep(max(0.0, seconds))
            while await self._is_paused():
                await in_thread(check_goes_on, self._store, self._layout)
                await asyncio.sleep(self._pause)

    async def _is_paused(self) -> bool:
        return await in_thread(is_paused, self._store, self._layout)

    async def _start_handed_back(self) -> None:
        rows = self._handed_back
        self._handed_back = []  # more may be handed back meanwhile
        await self._start_again(rows)

    async def _start_again(self, rows: Sequence[Rows]) -> None:
        """Start tasks again, in a round of their own."""
        self._rounds.append(list(rows))
        await in_thread(self._write_rounds)
        await self._start(rows, len(self._rounds) + 1)

    async def _start(self, rows: Sequence[Rows], number: int) -> None:
        if not rows:
            return
        inputs = await in_thread(self._make_inputs, rows)
        await in_thread(check_goes_on, self._store, self._layout)
        children = await self._node.start_children(
            self._payload.task_name,
            inputs,
            [self._key_of(one, number) for one in rows],
            self._metadata,
            [leaf_metadata(self._layout.experiment_id, (one.start, one.stop)) for one in rows],
            self._payload.priority,
        )
        self._open.update(zip(children, rows, strict=True))
        wait = asyncio.ensure_future(self._node.outputs(children, self._note))
        wait.add_done_callback(lambda _: self._news.set())
        self._waits.add(wait)

    def _key_of(self, rows: Rows, number: int) -> str:
        kind = "batch" if self._payload.batch_size > 1 else "leaf"
        key = f"{kind}-{rows.start}"
        return key if number == 1 else f"{key}-again-{number}"

    async def _wait_for_news(self, seconds: float | None) -> None:
        """Wait until a task has ended, or for some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        for wait in self._waits:
            if wait.done():
                wait.result()  # raises where waiting itself has failed

    def _note(self, child: Child, output: TaskOutput) -> None:
        """Take note of the end of a task."""
        rows = self._open.pop(child)
        self._news.set()
        if is_handed_back(output):
            self._again(rows)
            return
        if is_mismatch(output):
            if not self._was_repeated(rows):
                self._mismatched[rows] = output
            return
        self._end(rows, output)

    def _again(self, rows: Rows) -> None:
        if not self._was_repeated(rows):
            self._handed_back.append(rows)

    def _was_repeated(self, rows: Rows) -> bool:
        """Return whether a known round has these rows, for one earlier end of them."""
        if not self._repeated[rows]:
            return False
        self._repeated[rows] -= 1
        return True

    def _end(self, rows: Rows, output: TaskOutput) -> None:
        """Keep the output of a task; a batch whose run was paused has run only its first leaves."""
        done, failed = counts_of(output, len(rows))
        stop = rows.start + done + failed
        self._ends[Rows(rows.start, stop)] = output
        self._progress.add(done, failed)
        if stop < rows.stop:
            self._again(Rows(stop, rows.stop))

    def _write_ends(self) -> None:
        """Store what is known, because the engine may show a task that ended as cancelled."""
        if self._ends:
            key = self._layout.node_end(self._payload.recursion_map.node)
            self._store.put_bytes(key, encode_ends(self._ends, self._queued))

    def _read_rounds(self) -> list[list[Rows]]:
        data = self._store.find_bytes(self._key)
        return [[Rows(*pair) for pair in one] for one in json.loads(data)] if data else []

    def _write_rounds(self) -> None:
        rounds = [[(rows.start, rows.stop) for rows in one] for one in self._rounds]
        self._store.put_bytes(self._key, json.dumps(rounds).encode())
