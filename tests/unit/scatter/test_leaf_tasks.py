"""A scatter node starts tasks again that have run nothing, and knows them after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from scythe.messages import SENTINEL, encode_failure, hand_back
from scythe.outcomes import FailureKind, LeafFailure
from scythe.scatter import leaf_tasks
from scythe.scatter.leaf_tasks import LeafTasks
from scythe.scatter.models import ScatterGatherInput
from scythe.scatter.pause import put_pause, remove_pause
from scythe.scatter.stop import RunStopped, StopRequest, put_stop
from scythe.scatter.tree import RecursionMap, Rows
from scythe.settings import ScytheStorageSettings
from scythe.storage.files import S3Url
from scythe.storage.layout import RunLayout
from tests.unit.memory_store import MemoryStore

DEADLINE = 60.0
LAYOUT = RunLayout("runs", "walls/v1.0.0/2026-01-01_00-00-00")
DONE = {SENTINEL: "done", "record": ""}
OTHER_CODE = RuntimeError(
    encode_failure(LeafFailure(FailureKind.CODE_MISMATCH, "CodeMismatch", "other code"), 1, "r")
)


def batch(n_leaves: int, n_failed: int = 0) -> dict[str, Any]:
    return {SENTINEL: "batch", "packs": [], "n_leaves": n_leaves, "n_failed": n_failed}


class Engine:
    """Takes children, and ends each as the test says.

    Args:
        end_of: Returns the output of a child by its key; None while it runs.
    """

    def __init__(self, end_of: Callable[[str], Any]) -> None:
        self._end_of = end_of
        self.started: list[list[str]] = []

    async def start_children(self, *args: Any) -> list[str]:
        self.started.append(list(args[2]))
        return list(args[2])

    def waiting(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def outputs(self, children: Sequence[str], on_end: Any) -> list[Any]:
        left = list(children)
        while left:
            for child in list(left):
                if (end := self._end_of(child)) is not None:
                    left.remove(child)
                    on_end(child, end)
            await asyncio.sleep(0.01)
        return []


class Counts:
    """Counts leaves that have ended."""

    def __init__(self) -> None:
        self.done = self.failed = 0

    def add(self, done: int, failed: int) -> None:
        self.done += done
        self.failed += failed


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket in memory, at which a node looks often."""
    monkeypatch.setattr(leaf_tasks, "_PAUSE", 0.02)
    return MemoryStore()


def tasks_of(engine: Engine, store: Any, counts: Counts, batch_size: int = 1) -> LeafTasks:
    payload = ScatterGatherInput(
        experiment_id=LAYOUT.experiment_id,
        task_name="walls",
        specs_uri=S3Url("s3://bucket/runs/specs.pq"),
        storage_settings=ScytheStorageSettings(BUCKET="bucket"),
        recursion_map=RecursionMap(factor=10, max_depth=0),
        batch_size=batch_size,
    )
    node: Any = engine
    progress: Any = counts
    make: Any = lambda rows: [SimpleNamespace() for _ in rows]  # noqa: E731
    return LeafTasks(node, payload, store, LAYOUT, progress, make, {})


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing tells when it is met
        await asyncio.sleep(0.01)


async def within(work: Any) -> Any:
    async with asyncio.timeout(DEADLINE):
        return await work


def test_tasks_without_a_pause_run_once(store: Any) -> None:
    engine = Engine(lambda key: RuntimeError("wall") if key == "leaf-2" else DONE)
    counts = Counts()
    rows = [Rows(row, row + 1) for row in range(4)]
    ends = asyncio.run(within(tasks_of(engine, store, counts).run(rows)))
    assert [part for part, _ in ends] == rows
    assert (counts.done, counts.failed) == (3, 1)
    assert engine.started == [["leaf-0", "leaf-1", "leaf-2", "leaf-3"]]
    assert store.find_bytes(LAYOUT.node_rounds("root")) is None


def test_leaves_of_a_paused_run_start_again_while_others_still_run(store: Any) -> None:
    may_end = False

    def end_of(key: str) -> Any:
        if key == "leaf-0":  # it runs until all others are over
            return DONE if may_end else None
        return DONE if "again" in key else hand_back()

    engine = Engine(end_of)

    async def run_all() -> Any:
        nonlocal may_end
        counts = Counts()
        work = asyncio.create_task(
            tasks_of(engine, store, counts).run([Rows(row, row + 1) for row in range(3)])
        )
        await until(lambda: counts.done == 2)
        may_end = True
        return await work

    ends = asyncio.run(within(run_all()))
    assert [part.start for part, _ in ends] == [0, 1, 2]
    assert engine.started[1:] == [["leaf-1-again-2", "leaf-2-again-2"]]


def test_nothing_starts_in_a_paused_run(store: Any) -> None:
    engine = Engine(lambda _: DONE)
    put_pause(store, LAYOUT)

    async def resume_later() -> Any:
        work = asyncio.create_task(tasks_of(engine, store, Counts()).run([Rows(0, 1)]))
        await asyncio.wait({work}, timeout=0.3)
        assert not engine.started
        remove_pause(store, LAYOUT)
        return await work

    assert len(asyncio.run(within(resume_later()))) == 1


def test_a_paused_run_can_be_stopped(store: Any) -> None:
    put_pause(store, LAYOUT)
    stop = StopRequest(state="cancelled", kind=FailureKind.CANCELLED, message="cancelled")
    put_stop(store, LAYOUT, stop)
    work = tasks_of(Engine(lambda _: DONE), store, Counts()).run([Rows(0, 1)])
    with pytest.raises(RunStopped):
        asyncio.run(within(work))


def test_the_rest_of_a_paused_batch_is_a_batch_of_its_own(store: Any) -> None:
    ends = {"batch-0": batch(4, 1), "batch-10": hand_back(), "batch-4-again-2": batch(6)}
    engine = Engine(lambda key: ends.get(key) or batch(10))
    counts = Counts()
    work = tasks_of(engine, store, counts, 10).run([Rows(0, 10), Rows(10, 20)])
    parts = [part for part, _ in asyncio.run(within(work))]
    assert parts == [Rows(0, 4), Rows(4, 10), Rows(10, 20)]
    assert (counts.done, counts.failed) == (19, 1)


def test_a_node_that_restarts_starts_the_same_children(store: Any) -> None:
    rows = [Rows(row, row + 1) for row in range(3)]
    first = Engine(lambda key: None if key == "leaf-1-again-2" else hand_back())
    third = "again-3"

    async def die() -> None:
        work = asyncio.create_task(tasks_of(first, store, Counts()).run(rows))
        await until(lambda: len(first.started) == 3)
        work.cancel()
        await asyncio.wait({work})

    asyncio.run(within(die()))
    known = first.started
    second = Engine(lambda key: DONE if third in key or key == "leaf-1-again-2" else hand_back())
    counts = Counts()
    ends = asyncio.run(within(tasks_of(second, store, counts).run(rows)))
    assert second.started[: len(known)] == known
    assert [part for part, _ in ends] == rows
    assert (counts.done, counts.failed) == (3, 0)


def test_other_code_everywhere_is_tried_three_times(store: Any) -> None:
    engine = Engine(lambda key: DONE if key == "leaf-0" else OTHER_CODE)
    counts = Counts()
    work = tasks_of(engine, store, counts).run([Rows(0, 1), Rows(1, 2)])
    ends = asyncio.run(within(work))
    assert ends[1] == (Rows(1, 2), OTHER_CODE)
    assert engine.started[1:] == [["leaf-1-again-2"], ["leaf-1-again-3"]]
    assert (counts.done, counts.failed) == (1, 1)
