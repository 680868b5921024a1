"""Leaves that may have killed their worker process run alone, and only a guilty one is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from scythe.errors import LeafFailed
from scythe.outcomes import Batch, CodeRef, FailureKind, LeafCall, StoreConfig
from scythe.worker_processes import quarantine as module
from scythe.worker_processes.quarantine import Quarantine
from scythe.worker_processes.running_leaves import RunningLeaf, RunningLeaves, Suspect, with_death
from scythe.worker_processes.shared_state import SharedState

TWICE = Suspect(deaths=2, seconds=0.0)
GUILTY = Suspect(deaths=3, seconds=0.0, is_guilty=True)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 1e-9)


def call_of(leaf_id: str, batch: Batch | None = None) -> LeafCall:
    return LeafCall(
        leaf_id=leaf_id,
        code=CodeRef("e", "m", "f"),
        spec="{}",
        experiment_id="e/v1.0.0/now",
        store=StoreConfig(bucket="b"),
        workflow_run_id=leaf_id,
        batch=batch,
    )


class Worker:
    """A worker process whose leaves run until they are told to end."""

    def __init__(self, leaves: RunningLeaves, suspects: dict[str, Suspect]) -> None:
        self.leaves, self._quarantine = leaves, Quarantine(leaves, suspects)
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *names: str) -> None:
        for name in names:
            self._tasks.append(asyncio.create_task(self._run(name)))
        await self.settle()

    async def _run(self, name: str) -> None:
        async with self._quarantine.entered(call_of(name)):
            end = self._ends[name] = asyncio.Event()
            await end.wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0.001)

    @property
    def running(self) -> dict[str, bool]:
        """The leaves that run, and whether each is alone."""
        return {leaf.name: leaf.is_alone for leaf in self.leaves.read()}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def play(
    scenario: Callable[[Worker], Awaitable[None]], suspects: dict[str, Suspect] | None = None
) -> None:
    async def whole() -> None:
        worker = Worker(SharedState(1).leaves_of(0), suspects or {})
        try:
            await scenario(worker)
        finally:
            await worker.close()

    asyncio.run(whole())


def test_leaves_run_beside_each_other_and_are_noted() -> None:
    async def scenario(worker: Worker) -> None:
        await worker.start("a", "b")
        assert worker.running == {"a": False, "b": False}
        await worker.end("a")
        assert worker.running == {"b": False}

    play(scenario, {"a": Suspect(deaths=1, seconds=0.0)})


def test_a_suspect_waits_until_it_is_alone_and_others_wait_for_it() -> None:
    async def scenario(worker: Worker) -> None:
        await worker.start("a", "suspect", "b")
        assert worker.running == {"a": False}
        await worker.end("a")
        assert worker.running == {"suspect": True}
        await worker.end("suspect")
        assert worker.running == {"b": False}

    play(scenario, {"suspect": TWICE})


def test_suspects_run_one_at_a_time() -> None:
    async def scenario(worker: Worker) -> None:
        await worker.start("a", "b", "c")
        assert worker.running == {"a": True}
        await worker.end("a")
        assert worker.running == {"b": True}
        await worker.end("b")
        assert worker.running == {"c": False}

    play(scenario, {"a": TWICE, "b": TWICE})


def test_a_suspect_that_outlives_its_time_is_alone_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_ALONE_SECONDS_MIN", 0.05)

    async def scenario(worker: Worker) -> None:
        await worker.start("a", "b", "c")
        async with asyncio.timeout(10):
            while len(worker.running) < 3:  # noqa: ASYNC110 - the timers of both
                await asyncio.sleep(0.01)
        assert worker.running == {"a": False, "b": False, "c": False}

    play(scenario, {"a": TWICE, "b": TWICE})


def test_a_suspect_that_is_cancelled_while_it_waits_holds_up_nobody() -> None:
    async def scenario(worker: Worker) -> None:
        await worker.start("a", "suspect", "b")
        worker._tasks[1].cancel()  # the suspect's
        await worker.settle()
        assert worker.running == {"a": False, "b": False}

    play(scenario, {"suspect": TWICE})


def test_a_guilty_leaf_is_refused() -> None:
    async def enter() -> None:
        async with Quarantine(RunningLeaves(), {"a": GUILTY}).entered(call_of("a")):
            pass

    with pytest.raises(LeafFailed) as caught:
        asyncio.run(enter())
    assert caught.value.failure.kind is FailureKind.WORKER_CRASH
    assert caught.value.journal is None


def test_a_suspect_batch_gives_its_leaves_one_by_one() -> None:
    batch = Batch("specs.pq", (10, 14), journal=b"[1]\n[2]\n")
    entered: list[Any] = []

    async def enter(suspects: dict[str, Suspect]) -> None:
        async with Quarantine(RunningLeaves(), suspects).entered(call_of("a", batch)) as call:
            entered.append(call.batch)

    asyncio.run(enter({"a": Suspect(deaths=1)}))
    asyncio.run(enter({"a": TWICE}))
    assert [one.until for one in entered] == [0, 3]
    with pytest.raises(LeafFailed) as caught:
        asyncio.run(enter({"a": TWICE, "a-12": GUILTY}))
    assert caught.value.journal == batch.journal


def test_what_ran_at_a_death_is_a_suspect_and_guilty_only_if_it_ran_alone() -> None:
    now = time.monotonic()
    both = [RunningLeaf("a", now - 5, False), RunningLeaf("b", now - 9, False)]
    once = with_death({}, both, now)
    twice = with_death(once, [RunningLeaf("a", now - 7, False)], now)
    thrice = with_death(twice, [RunningLeaf("a", now - 2, True)], now)
    assert once == {"a": Suspect(1, 5.0), "b": Suspect(1, 9.0)}
    assert twice == {"a": Suspect(2, 5.0), "b": Suspect(1, 9.0)}
    assert thrice["a"] == Suspect(3, 2.0, is_guilty=True)


def test_more_leaves_than_there_are_places_run_all_the_same() -> None:
    leaves = RunningLeaves()
    places = [leaves.add(RunningLeaf("x" * 200, 0.0, False)) for _ in range(2049)]
    assert places[-1] == -1
    for place in places:
        leaves.share(place)
        leaves.remove(place)
    assert leaves.read() == []
