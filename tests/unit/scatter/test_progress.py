"""The nodes of a tree are counted at the right pace, and the last counts are stored last."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from scythe.scatter import progress
from scythe.scatter.models import ScatterGatherInput, ScatterGatherResult
from scythe.scatter.progress import NodeProgress, pause_of
from scythe.scatter.tree import Cut, NodeTasks, RecursionMap, Rows
from scythe.settings import ScytheStorageSettings
from scythe.status import RunStatus
from scythe.storage.files import S3Url
from scythe.storage.layout import RunLayout

_LIMIT = 10.0  # seconds


def base_node(factor: int, depth: int) -> RecursionMap:
    tree = RecursionMap(factor=factor, max_depth=depth)
    for _ in range(depth):
        tree = tree.child(factor - 1)
    return tree


@pytest.mark.parametrize(("factor", "depth"), [(5, 1), (100, 1), (1000, 1), (10, 3)])
def test_all_nodes_that_run_leaves_ask_five_times_a_second_together(
    factor: int, depth: int
) -> None:
    assert factor**depth / pause_of(base_node(factor, depth), 0) == pytest.approx(5)


def test_a_node_with_few_beside_it_is_counted_once_a_second() -> None:
    assert pause_of(RecursionMap(factor=1000, max_depth=0), 0) == 1.0
    assert pause_of(base_node(4, 1), 0) == 1.0
    assert pause_of(RecursionMap(factor=4, max_depth=1), 4) == 1.0


def test_a_node_looks_at_many_nodes_below_it_less_often() -> None:
    assert pause_of(RecursionMap(factor=1000, max_depth=1), 1000) == pytest.approx(20)


def test_a_node_is_counted_less_often_as_it_gets_older() -> None:
    tree = RecursionMap(factor=1000, max_depth=0)
    assert [pause_of(tree, 0, age) for age in (5, 30, 10_000)] == pytest.approx([1.0, 3.0, 5.0])
    assert pause_of(base_node(100, 1), 0, 100) == pytest.approx(20)


class HeldStore:
    """A bucket that takes its time over the first counts of a node that runs."""

    def __init__(self, before: RunStatus | None = None) -> None:
        self.before = before
        self.stored: list[RunStatus] = []
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()

    def find_bytes(self, key: str) -> bytes | None:
        return self.before.model_dump_json().encode() if self.before else None

    def put_bytes(self, key: str, data: bytes) -> None:
        status = RunStatus.model_validate_json(data)
        if status.state == "running" and status.running:
            self.is_asked.set()
            assert self.may_go_on.wait(_LIMIT)
        self.stored.append(status)


def progress_of(store: Any, max_failures: int | None = None) -> NodeProgress:
    async def count() -> dict[str, int]:
        return {"completed": 3, "failed": 0, "cancelled": 0, "running": 1}

    run: Any = SimpleNamespace(workflow_run_id="r", count_children=count)
    payload = ScatterGatherInput(
        experiment_id="e",
        task_name="t",
        specs_uri=S3Url("s3://b/p/specs.pq"),
        storage_settings=ScytheStorageSettings(BUCKET="b"),
        recursion_map=RecursionMap(factor=3, max_depth=0),
        max_failures=max_failures,
    )
    tasks = NodeTasks(range(3), Cut(Rows(0, 3), 1))
    return NodeProgress(RunLayout("p", "e"), store, run, payload, tasks)


async def _end_while_counts_are_stored(store: Any) -> None:
    node = progress_of(store)
    node.add(done=2, failed=0)
    async with node:
        assert await asyncio.to_thread(store.is_asked.wait, _LIMIT)
        ended = asyncio.create_task(node.stop())
        await asyncio.wait({ended}, timeout=0.3)
        assert not ended.done()  # or the last status could be stored before these counts
        store.may_go_on.set()
        await ended
        store.stored.append(node.status_of(ScatterGatherResult(uris={}, n_leaves=3)))


def test_counts_that_are_being_stored_when_a_run_ends_do_not_replace_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "pause_of", lambda *_: 0.0)
    store = HeldStore()
    asyncio.run(_end_while_counts_are_stored(store))
    found = [(status.state, status.done) for status in store.stored]
    assert found == [("running", 0), ("running", 2), ("done", 3)]


@pytest.mark.parametrize(("root", "expected"), [("r", [2, 2]), ("another", [0, 2])])
def test_a_root_that_is_run_again_goes_on_from_what_it_had_counted(
    root: str, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "pause_of", lambda *_: 0.0)
    before = RunStatus(experiment_id="e", workflow_run_id=root, done=2, failed=1, started=5.0)
    store = HeldStore(before)
    asyncio.run(_end_while_counts_are_stored(store))
    assert [status.done for status in store.stored[:2]] == expected
    is_same = root == "r"
    assert [status.failed for status in store.stored[:2]] == [int(is_same)] * 2
    assert all((status.started == 5.0) is is_same for status in store.stored)


@pytest.mark.parametrize(("most", "state"), [(None, "done"), (1, "done"), (0, "failed")])
def test_a_run_with_more_failures_than_it_allows_has_failed(most: int | None, state: str) -> None:
    node = progress_of(HeldStore(), max_failures=most)
    status = node.status_of(ScatterGatherResult(uris={}, n_leaves=3, n_failed=1))
    assert status.state == state
    assert (state == "failed") == ("1 leaf has failed, and the run allows 0" in status.message)
