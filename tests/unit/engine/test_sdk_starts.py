"""What a process of the SDK tells the engine of a task's start."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
from hatchet_sdk.contracts import dispatcher_pb2

from scythe.engine.sdk_starts import say_starts_once

STARTED = dispatcher_pb2.STEP_EVENT_TYPE_STARTED
COMPLETED = dispatcher_pb2.STEP_EVENT_TYPE_COMPLETED
FAILED = dispatcher_pb2.STEP_EVENT_TYPE_FAILED


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []

    async def send(
        self: Any, action: Any, event: Any, payload: Any, should_not_retry: bool, after: Any = None
    ) -> str:
        found.append((action.key, event, payload))
        return "answer"

    monkeypatch.setattr(DispatcherClient, "send_step_action_event", send)
    say_starts_once()
    return found


def say(key: str, event: Any, payload: Any = None) -> Any:
    client = DispatcherClient.__new__(DispatcherClient)
    action: Any = SimpleNamespace(key=key)
    return asyncio.run(client.send_step_action_event(action, event, payload, False))


def test_each_try_is_told_once(sent: list[tuple[str, Any, Any]]) -> None:
    for key, event in [
        ("a/0", STARTED),
        ("b/0", STARTED),
        ("a/0", STARTED),
        ("b/0", STARTED),
        ("a/0", FAILED),
        ("a/1", STARTED),
        ("a/1", STARTED),
        ("b/0", COMPLETED),
    ]:
        say(key, event, "given")
    assert sent == [
        ("a/0", STARTED, "given"),
        ("b/0", STARTED, "given"),
        ("a/0", FAILED, "given"),
        ("a/1", STARTED, "given"),
        ("b/0", COMPLETED, "given"),
    ]


def test_a_node_that_goes_on_after_a_while_is_told_again(sent: list[tuple[str, Any, Any]]) -> None:
    for _ in range(4):
        say("n/0", STARTED)
    assert len(sent) == 2


def test_an_sdk_that_says_it_once_changes_nothing(sent: list[tuple[str, Any, Any]]) -> None:
    for key in ("a/0", "a/1"):
        assert say(key, STARTED) == "answer"
        assert say(key, COMPLETED) == "answer"
    assert len(sent) == 4
