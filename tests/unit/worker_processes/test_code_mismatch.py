"""When a worker takes leaves again that it has given back."""

from __future__ import annotations

import asyncio

import pytest

from scythe.engine.lookup import ConnectedWorker
from scythe.errors import EngineError
from scythe.worker_processes import code_mismatch as give_back
from scythe.worker_processes.code_mismatch import CodeMismatch

TASK = "Simulate"


def serving(*names: str, is_paused: bool = False) -> list[ConnectedWorker]:
    tasks = frozenset({TASK.lower()})
    return [ConnectedWorker(name, tasks, {}, is_paused=is_paused) for name in names]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds for which the worker pauses each time."""
    monkeypatch.setattr(give_back, "_NOTICE", 0.0)
    monkeypatch.setattr(give_back, "_FIRST_PAUSE", 0.01)
    return []


def connect(monkeypatch: pytest.MonkeyPatch, *workers: ConnectedWorker) -> None:
    monkeypatch.setattr("scythe.engine.lookup.connected_workers", lambda: list(workers))


async def give(back: CodeMismatch, times: int) -> None:
    for _ in range(times):
        await back.wait("run", TASK)
        await asyncio.sleep(0.05)


def test_a_worker_steps_back_longer_each_time_as_long_as_another_may_take_the_leaves(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, *serving("this", "other"))
    asyncio.run(give(CodeMismatch(pauses.append), 3))
    assert pauses == [0.01, 0.02, 0.04]


def test_leaves_that_come_at_one_time_make_one_pause(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, *serving("this", "other"))
    back = CodeMismatch(pauses.append)

    async def at_once() -> None:
        await asyncio.gather(*(back.wait("run", TASK) for _ in range(5)))

    asyncio.run(at_once())
    assert pauses == [0.01]


def test_a_worker_that_serves_alone_steps_back_once(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, *serving("this"), *serving("wrong too", is_paused=True))
    asyncio.run(give(CodeMismatch(pauses.append), 4))
    assert pauses == [0.01]


def test_a_silent_engine_counts_as_one_with_other_workers(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> list[ConnectedWorker]:
        raise EngineError("no answer")

    monkeypatch.setattr("scythe.engine.lookup.connected_workers", silent)
    asyncio.run(give(CodeMismatch(pauses.append), 2))
    assert len(pauses) == 2
