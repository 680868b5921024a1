"""Counts of leaves, as a process of the SDK serves them."""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

import pytest

from scythe.engine.leaf_counts import CountingExecutor
from scythe.engine.sdk_logs import quiet_logger
from scythe.errors import ExecutorUnavailable, LeafFailed
from scythe.executor import Capacity
from scythe.outcomes import (
    CodeRef,
    FailureKind,
    LeafCall,
    LeafFailure,
    LeafResult,
    LeafStats,
    StoreConfig,
)


class Scripted:
    """An executor that does what the id of the leaf says."""

    capacity = Capacity(slots=4, source="a test", places=1)

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def run(self, call: LeafCall) -> LeafResult:
        await self.may_end.wait()
        if call.leaf_id == "raises":
            raise LeafFailed(LeafFailure(FailureKind.APPLICATION, "ValueError", "no"))
        if call.leaf_id == "lost":
            raise ExecutorUnavailable(LeafFailure(FailureKind.NODE_LOST, "NodeLost", "gone"))
        return LeafResult("{}", {}, {}, LeafStats())

    async def aclose(self) -> None:
        """Nothing to close."""


def call(leaf_id: str) -> LeafCall:
    return LeafCall(leaf_id, CodeRef("e", "m", "f"), "{}", "e/v1.0.0/d", StoreConfig("b"))


def read(logger: Any, pipe: Connection) -> None:
    """Runs in another process, which got the logger as the SDK's does."""
    from prometheus_client import generate_latest

    assert logger.name == "hatchet" or logger
    while pipe.recv():
        lines = generate_latest().decode().splitlines()
        pipe.send([line for line in lines if line.startswith("scythe_")])


def test_another_process_serves_the_counts_of_this_moment() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()

    async def run() -> None:
        scripted = Scripted()
        executor = CountingExecutor(scripted)
        reader = context.Process(target=read, args=(quiet_logger(), theirs))
        reader.start()

        def metrics() -> dict[str, float]:
            ours.send(True)
            assert ours.poll(30)
            return {name: float(value) for name, value in map(str.split, ours.recv())}

        names = ("good", "good", "raises", "lost")
        tasks = [asyncio.ensure_future(executor.run(call(name))) for name in names]
        await asyncio.sleep(0)
        before = metrics()
        assert before["scythe_slots"] == 4
        assert before["scythe_leaves_in_flight"] == 4
        assert before["scythe_leaves_queued"] == 3
        assert before["scythe_leaves_done_total"] == 0
        scripted.may_end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        after = metrics()
        assert after["scythe_leaves_in_flight"] == after["scythe_leaves_queued"] == 0
        assert after["scythe_leaves_done_total"] == 2
        assert after["scythe_leaf_seconds_total"] > 0
        failed = {name: n for name, n in after.items() if name.startswith("scythe_leaves_failed")}
        assert failed.pop('scythe_leaves_failed_total{kind="application_error"}') == 1
        assert failed.pop('scythe_leaves_failed_total{kind="node_lost"}') == 1
        assert len(failed) == len(FailureKind) - 2
        assert set(failed.values()) == {0}
        ours.send(False)
        reader.join(30)

    asyncio.run(run())


@pytest.mark.parametrize("places", [0, 4])
def test_nothing_waits_where_all_slots_are_places(places: int) -> None:
    async def run() -> float:
        scripted = Scripted()
        scripted.capacity = Capacity(slots=4, source="a test", places=places)
        executor = CountingExecutor(scripted)
        task = asyncio.ensure_future(executor.run(call("good")))
        await asyncio.sleep(0)
        running = executor.running
        scripted.may_end.set()
        await task
        return running

    assert asyncio.run(run()) == 1
