"""What a process of the SDK tells the engine of a task's start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
from hatchet_sdk.contracts import dispatcher_pb2

from scythe.engine import sdk_starts
from scythe.engine.sdk_starts import say_starts_of_long_tasks

STARTED = dispatcher_pb2.STEP_EVENT_TYPE_STARTED
COMPLETED = dispatcher_pb2.STEP_EVENT_TYPE_COMPLETED
FAILED = dispatcher_pb2.STEP_EVENT_TYPE_FAILED
_LONG = 60.0  # seconds that no test takes


class Engine:
    """Takes messages; the first `refuse` starts that are said with their time are refused."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any, Any]] = []
        self.times: list[float] = []
        self.refuse = 0

    async def SendStepActionEvent(self, event: Any, metadata: Any) -> str:
        assert dict(metadata) == {"authorization": "bearer secret"}
        if self.refuse:
            self.refuse -= 1
            raise ConnectionError("away")
        self.said.append((f"{event.task_run_external_id}/{event.retry_count}", event.event_type, 1))
        self.times.append(event.event_timestamp.ToNanoseconds() / 1e9)
        return "told"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine()

    async def send(
        self: Any, action: Any, event: Any, payload: Any, should_not_retry: bool, after: Any = None
    ) -> str:
        found.said.append((action.key, event, payload))
        return "answer"

    monkeypatch.setattr(DispatcherClient, "send_step_action_event", send)
    monkeypatch.setattr(DispatcherClient, "aio_client", found, raising=False)
    say_starts_of_long_tasks()
    return found


def say(key: str, event: Any, payload: Any = None) -> Coroutine[Any, Any, Any]:
    client = DispatcherClient.__new__(DispatcherClient)
    client.token = "secret"
    run, retry = key.split("/")
    action: Any = SimpleNamespace(
        key=key,
        worker_id="w",
        job_id="j",
        job_run_id="jr",
        step_id="s",
        step_run_id=run,
        action_id="a",
        retry_count=int(retry),
    )
    return client.send_step_action_event(action, event, payload, False)


async def say_in_turn(*messages: tuple[str, Any]) -> list[Any]:
    """Say one after the other, as the SDK does: each in a task of its own."""
    tasks = []
    for key, event in messages:
        tasks.append(asyncio.create_task(say(key, event, "given")))
        await asyncio.sleep(0)  # the task begins
    return await asyncio.gather(*tasks)


def test_of_a_short_task_only_the_end_is_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_starts, "SHORT", _LONG)
    begin = time.monotonic()
    answers = asyncio.run(
        say_in_turn(
            ("a/0", STARTED),
            ("b/0", STARTED),
            ("a/0", STARTED),
            ("b/0", STARTED),
            ("a/0", FAILED),
            ("a/1", STARTED),
            ("a/1", STARTED),
            ("b/0", COMPLETED),
            ("a/1", COMPLETED),
        )
    )
    assert time.monotonic() - begin < _LONG / 2
    assert engine.said == [
        ("a/0", FAILED, "given"),
        ("b/0", COMPLETED, "given"),
        ("a/1", COMPLETED, "given"),
    ]
    assert [answer for answer in answers if answer] == ["answer"] * 3


def test_of_a_long_task_the_start_is_told_once_with_its_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_starts, "SHORT", 0.3)
    before = time.time()
    answers = asyncio.run(say_in_turn(("a/2", STARTED), ("a/2", STARTED)))
    told = time.time()
    assert answers == ["told", None]
    assert engine.said == [("a/2", STARTED, 1)]
    assert before <= engine.times[0] <= told - 0.3
    asyncio.run(say("a/2", COMPLETED, "given"))
    assert engine.said[1:] == [("a/2", COMPLETED, "given")]


def test_a_node_that_goes_on_after_a_while_is_told_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_starts, "SHORT", 0.0)

    async def twice() -> None:
        await say_in_turn(("n/0", STARTED), ("n/0", STARTED))
        await say_in_turn(("n/0", STARTED), ("n/0", STARTED))

    asyncio.run(twice())
    assert engine.said == [("n/0", STARTED, 1)] * 2


def test_a_start_that_the_engine_does_not_take_goes_the_way_of_the_sdk(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_starts, "SHORT", 0.0)
    engine.refuse = 1
    assert asyncio.run(say("a/0", STARTED, "given")) == "answer"
    assert engine.said == [("a/0", STARTED, "given")]


def test_an_end_without_a_start_is_told(engine: Engine) -> None:
    assert asyncio.run(say("a/0", COMPLETED)) == "answer"
    assert engine.said == [("a/0", COMPLETED, None)]
