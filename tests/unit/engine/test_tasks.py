"""Children are handed to the engine in messages that it takes, and counted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from scythe.engine import tasks
from scythe.engine.tasks import _slices

ENGINE_LIMIT = 4 * 2**20


@pytest.mark.parametrize("text", ["x" * 10, "x" * 4300, "x" * 100_000, "中" * 4000, "😀" * 60_000])
def test_no_message_is_too_large(text: str) -> None:
    items = [SimpleNamespace(input=text) for _ in range(2500)]
    slices = _slices(items)
    assert [item for part in slices for item in part] == items
    for part in slices:
        assert 0 < len(part) <= 1000
        assert sum(len(item.input.encode()) + 300 for item in part) < ENGINE_LIMIT
    if len(text) == 10:
        assert len(slices) == 3  # not one message for each


def test_inputs_may_be_missing() -> None:
    assert len(_slices([SimpleNamespace(input=None)])) == 1
    assert _slices([]) == []


def test_a_node_counts_its_children_since_it_was_created(monkeypatch: pytest.MonkeyPatch) -> None:
    created = datetime(2026, 1, 2, tzinfo=UTC)
    answers, asked = [None, created], list[dict[str, Any]]()

    async def creation_of(workflow_run_id: str) -> datetime | None:
        assert workflow_run_id == "run"
        return answers.pop(0)

    async def aio_get_task_metrics(**options: Any) -> Any:
        asked.append(options)
        return SimpleNamespace(model_dump=lambda: {"running": len(asked)})

    metrics = SimpleNamespace(aio_get_task_metrics=aio_get_task_metrics)
    monkeypatch.setattr(tasks, "creation_of", creation_of)
    monkeypatch.setattr(tasks, "client", lambda: SimpleNamespace(metrics=metrics))

    async def count() -> list[dict[str, int]]:
        node = tasks.NodeRun("run", "task", None)
        return [await node.count_children() for _ in range(3)]

    assert asyncio.run(count()) == [{"running": 1}, {"running": 2}, {"running": 3}]
    assert [options["since"] for options in asked] == [None, created, created]
    assert {options["parent_task_external_id"] for options in asked} == {"task"}
