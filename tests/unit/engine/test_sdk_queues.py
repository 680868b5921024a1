"""What a worker and the process of the SDK tell each other, and the engine."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Generator
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
from hatchet_sdk.contracts import dispatcher_pb2
from hatchet_sdk.runnables.action import Action, ActionPayload, ActionType
from hatchet_sdk.utils.typing import STOP_LOOP
from hatchet_sdk.worker.action_listener_process import (
    ActionEvent,
    QueuedBatchActionEvent,
    WorkerActionListenerProcess,
)

from scythe.engine import sdk_queues
from scythe.engine.sdk_queues import TaskEvents, next_in, say_what_is_told

STARTED = dispatcher_pb2.STEP_EVENT_TYPE_STARTED
COMPLETED = dispatcher_pb2.STEP_EVENT_TYPE_COMPLETED
FAILED = dispatcher_pb2.STEP_EVENT_TYPE_FAILED
_SPAWN = multiprocessing.get_context("spawn")
_LONG = 60.0  # seconds that no test takes


def event_of(key: str, kind: Any, payload: str | None = None) -> ActionEvent:
    run, retry = key.split("/")
    action = Action(
        worker_id="w",
        tenant_id="t",
        workflow_run_id="wr",
        job_id="j",
        job_name="",
        job_run_id="jr",
        step_id="s",
        step_run_id=run,
        action_id="a",
        action_type=ActionType.START_STEP_RUN,
        retry_count=int(retry),
        action_payload=ActionPayload(input={"spec": "x" * 1000}),
    )
    return ActionEvent(action=action, type=kind, payload=payload, should_not_retry=False)


class Told:
    """Takes what is put into the queue."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._news: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, event: Any) -> None:
        self.events.append(event)
        self._news.put_nowait(event)

    async def hear(self) -> Any:
        return await asyncio.wait_for(self._news.get(), _LONG)

    @property
    def kinds(self) -> list[tuple[str, Any]]:
        return [(event.action.key, event.type) for event in self.events]


@pytest.fixture
def queue() -> Generator[Any]:
    made = _SPAWN.Queue()
    yield made
    made.close()
    made.join_thread()


def test_items_come_in_their_order_whatever_their_size(queue: Any) -> None:
    items = [b"x" * size for size in (0, 1, 3_000_000, 10)]

    async def take() -> list[bytes]:
        for item in items:
            queue.put(item)
        return [await next_in(queue, _LONG) for _ in items]

    assert asyncio.run(take()) == items


def test_an_item_that_comes_later_is_waited_for_while_other_things_go_on(queue: Any) -> None:
    async def take() -> tuple[Any, int]:
        taking, turns = asyncio.create_task(next_in(queue)), 0
        while turns < 100:
            turns += 1
            await asyncio.sleep(0)
        queue.put("late")
        return await asyncio.wait_for(taking, _LONG), turns

    assert asyncio.run(take()) == ("late", 100)


def test_a_wait_has_an_end_and_loses_nothing(queue: Any) -> None:
    async def take() -> str:
        with pytest.raises(Empty):
            await next_in(queue, 0.05)
        waiting = asyncio.create_task(next_in(queue))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        queue.put("after")
        return await next_in(queue, _LONG)

    assert asyncio.run(take()) == "after"


def test_of_a_short_task_only_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_queues, "SHORT", _LONG)
    told = Told()

    async def run() -> None:
        events = TaskEvents(told)
        for key, kind in (
            *(("a/0", STARTED), ("b/0", STARTED), ("a/0", FAILED)),
            *(("a/1", STARTED), ("b/0", COMPLETED), ("a/1", COMPLETED)),
        ):
            events.put(event_of(key, kind, "given" if kind != STARTED else None))

    asyncio.run(run())
    assert told.kinds == [("a/0", FAILED), ("b/0", COMPLETED), ("a/1", COMPLETED)]
    assert {event.payload for event in told.events} == {"given"}
    # What the task was given is not sent back.
    assert {event.action.action_payload.model_dump_json() for event in told.events} == {
        ActionPayload().model_dump_json()
    }


def test_of_a_long_task_the_start_is_told_once_with_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sdk_queues, "SHORT", 0.1)
    told = Told()

    async def run() -> tuple[int, int]:
        events, before = TaskEvents(told), time.time_ns()
        events.put(event_of("a/2", STARTED))
        after = time.time_ns()
        await told.hear()
        events.put(event_of("a/2", COMPLETED))
        return before, after

    before, after = asyncio.run(run())
    assert told.kinds == [("a/2", STARTED), ("a/2", COMPLETED)]
    assert before <= int(told.events[0].payload) <= after


def test_a_node_that_goes_on_after_a_while_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_queues, "SHORT", 0.0)
    told = Told()

    async def run() -> None:
        events = TaskEvents(told)
        for _ in range(2):
            events.put(event_of("n/0", STARTED))
            await told.hear()

    asyncio.run(run())
    assert told.kinds == [("n/0", STARTED)] * 2


def test_a_task_that_is_cut_off_and_begins_again_at_once_has_one_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sdk_queues, "SHORT", 0.05)
    told = Told()

    async def run() -> None:
        events = TaskEvents(told)
        events.put(event_of("n/0", STARTED))
        events.put(event_of("n/0", STARTED))
        events.put(event_of("other/0", STARTED))
        while (await told.hear()).action.key != "other/0":
            pass

    asyncio.run(run())
    assert told.kinds == [("n/0", STARTED), ("other/0", STARTED)]


def test_other_messages_pass() -> None:
    told = Told()
    events = TaskEvents(told)
    batch = QueuedBatchActionEvent(action=event_of("a/0", STARTED).action, type=STARTED, items=[])
    for message in (STOP_LOOP, batch):
        events.put(message)
    assert told.events == [STOP_LOOP, batch]


class Engine:
    """Takes messages; the first `refuse` starts that are said with their time are refused."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any, int]] = []
        self.sdks_way: list[tuple[Any, ...]] = []
        self.refuse = 0
        self.aio_client: Any = self
        self.token = "secret"

    async def SendStepActionEvent(self, event: Any, metadata: Any) -> None:
        assert dict(metadata) == {"authorization": "bearer secret"}
        if self.refuse:
            self.refuse -= 1
            raise ConnectionError("away")
        moment = event.event_timestamp.ToNanoseconds()
        self.said.append(
            (f"{event.task_run_external_id}/{event.retry_count}", event.event_type, moment)
        )

    async def send_step_action_event(self, action: Any, *more: Any) -> None:
        self.sdks_way.append((action.key, *more))


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The SDK's process, as `say_what_is_told` changes it."""

    async def send(self: Any, event: Any, retry_attempt: int = 1) -> None:
        self.sent.append((event.action.key, event.type, event.payload))

    def make(self: Any, queue: Any) -> None:
        self.event_queue, self.running_step_runs = queue, {}
        self.dispatcher_client, self.sent = Engine(), []

    monkeypatch.setattr(WorkerActionListenerProcess, "__init__", make)
    monkeypatch.setattr(WorkerActionListenerProcess, "send_event", send)
    monkeypatch.setattr(WorkerActionListenerProcess, "_get_event", None)
    say_what_is_told()
    kind: Any = WorkerActionListenerProcess
    return SimpleNamespace(of=kind)


def test_a_start_is_said_with_its_time(listener: SimpleNamespace) -> None:
    process = listener.of(Told())
    process.running_step_runs["a"] = 1.0
    asyncio.run(process.send_event(event_of("a/3", STARTED, "1234567890123456789")))
    assert process.dispatcher_client.said == [("a/3", STARTED, 1234567890123456789)]
    assert process.sent == []
    assert process.running_step_runs == {}


@pytest.mark.parametrize("connected", [True, False])
def test_a_start_that_the_engine_does_not_take_goes_the_way_of_the_sdk(
    listener: SimpleNamespace, connected: bool
) -> None:
    process = listener.of(Told())
    process.dispatcher_client.refuse = 1
    if not connected:
        process.dispatcher_client.aio_client = None
    asyncio.run(process.send_event(event_of("a/0", STARTED, "1")))
    assert process.dispatcher_client.said == []
    assert process.dispatcher_client.sdks_way == [("a/0", STARTED, None, False)]


def test_an_end_goes_the_way_of_the_sdk(listener: SimpleNamespace) -> None:
    process = listener.of(Told())
    process.running_step_runs["a"] = 1.0
    asyncio.run(process.send_event(event_of("a/0", FAILED, "why")))
    assert process.sent == [("a/0", FAILED, "why")]
    assert process.running_step_runs == {}


def test_a_task_that_the_worker_has_not_begun_is_known(listener: SimpleNamespace) -> None:
    async def hear() -> tuple[dict[str, float], dict[str, float], list[Any]]:
        process = listener.of(told := Told())
        process.event_queue.put(event_of("a/0", STARTED))
        at_once = dict(process.running_step_runs)  # the SDK looks whether it runs already
        await asyncio.sleep(0)
        return at_once, dict(process.running_step_runs), told.events

    before = time.time()
    at_once, later, told = asyncio.run(hear())
    assert (at_once, list(later), told) == ({}, ["a"], [])
    assert before <= later["a"] <= time.time()


def test_the_process_reads_what_the_worker_tells(listener: SimpleNamespace, queue: Any) -> None:
    process = listener.of(queue)

    async def read() -> Any:
        with pytest.raises(Empty):
            await process._get_event(timeout_seconds=0.01)
        queue.put(STOP_LOOP)
        return await process._get_event(timeout_seconds=_LONG)

    assert asyncio.run(read()) == STOP_LOOP


def _put_back(events: Any, answers: Any) -> None:
    """In the other process: tell what has arrived there."""
    changed = WorkerActionListenerProcess.__init__.__module__
    answers.put((type(events).__module__, changed))


def test_the_other_process_gets_the_queue_of_the_sdk_and_says_what_it_is_told(queue: Any) -> None:
    answers = _SPAWN.Queue()
    other = _SPAWN.Process(target=_put_back, args=(TaskEvents(queue), answers))
    other.start()
    try:
        assert answers.get(timeout=_LONG) == ("multiprocessing.queues", "scythe.engine.sdk_queues")
    finally:
        other.join(_LONG)
        answers.close()
    assert other.exitcode == 0
