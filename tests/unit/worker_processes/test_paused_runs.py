"""A worker asks the bucket which runs are paused, seldom and without waiting for it for long."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from scythe.errors import StorageError
from scythe.outcomes import StoreConfig
from scythe.scatter.pause import put_pause, remove_pause
from scythe.storage.layout import RunLayout
from scythe.worker_processes import paused_runs
from scythe.worker_processes.paused_runs import PausedRuns
from tests.unit.memory_store import MemoryStore

RUN = "walls/v1.0.0/2026-01-01_00-00-00"


CONFIG = StoreConfig("bucket", "runs")
LAYOUT = RunLayout(CONFIG.prefix, RUN)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket in memory, which is asked each time."""
    store = MemoryStore()
    monkeypatch.setattr(paused_runs, "open_store", lambda _: store)
    monkeypatch.setattr(paused_runs, "_FRESH_SECONDS", 0.0)
    return store


def test_a_pause_and_its_end_are_seen(store: Any) -> None:
    async def looks() -> list[bool]:
        runs = PausedRuns()
        found = [await runs.has(CONFIG, RUN)]
        put_pause(store, LAYOUT)
        found.append(await runs.has(CONFIG, RUN))
        remove_pause(store, LAYOUT)
        return [*found, await runs.has(CONFIG, RUN)]

    assert asyncio.run(looks()) == [False, True, False]


def test_many_leaves_share_one_answer(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paused_runs, "_FRESH_SECONDS", 3600.0)
    asked: list[str] = []

    def is_paused(_: object, layout: RunLayout) -> bool:
        asked.append(layout.experiment_id)
        return True

    monkeypatch.setattr(paused_runs, "is_paused", is_paused)

    async def looks() -> list[bool]:
        runs = PausedRuns()
        found = await asyncio.gather(*(runs.has(CONFIG, RUN) for _ in range(50)))
        return [*found, await runs.has(CONFIG, RUN)]

    assert asyncio.run(looks()) == [True] * 51
    assert asked == [RUN]


def test_a_bucket_that_does_not_answer_changes_nothing(
    store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_pause(store, LAYOUT)

    def is_away(*_: object) -> bool:
        raise StorageError("the bucket is away")

    async def looks() -> list[bool]:
        runs = PausedRuns()
        found = [await runs.has(CONFIG, RUN)]
        monkeypatch.setattr(paused_runs, "is_paused", is_away)
        return [*found, await runs.has(CONFIG, RUN), await PausedRuns().has(CONFIG, RUN)]

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(looks()) == [True, True, False]
    assert "Cannot check whether run walls/v1.0.0" in caplog.text
