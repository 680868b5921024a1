"""The messages that the SDK's process sends to the engine."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Generator
from queue import Empty
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from hatchet_sdk.contracts.dispatcher_pb2 import ActionEventResponse
from hatchet_sdk.contracts.dispatcher_pb2_grpc import (
    DispatcherServicer,
    DispatcherStub,
    add_DispatcherServicer_to_server,
)
from hatchet_sdk.utils.typing import STOP_LOOP
from hatchet_sdk.worker.action_listener_process import (
    ActionEvent,
    WorkerActionListenerProcess,
)

from scythe.engine import sdk_process
from scythe.engine.sdk_process import Ends, next_in, say_what_is_told
from tests.unit.engine.sdk_events import COMPLETED, FAILED, LONG, STARTED, Told, event_of

_SPAWN = multiprocessing.get_context("spawn")


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
        return [await next_in(queue, LONG) for _ in items]

    assert asyncio.run(take()) == items


def test_an_item_that_comes_later_is_waited_for_while_other_things_go_on(queue: Any) -> None:
    async def take() -> tuple[Any, int]:
        taking, turns = asyncio.create_task(next_in(queue)), 0
        while turns < 100:
            turns += 1
            await asyncio.sleep(0)
        queue.put("late")
        return await asyncio.wait_for(taking, LONG), turns

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
        return await next_in(queue, LONG)

    assert asyncio.run(take()) == "after"


class Engine:
    """Takes messages; the first `refuse` starts that are said with their time are refused."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any, int]] = []
        self.sdks_way: list[tuple[Any, ...]] = []
        self.refuse = 0
        self.aio_client: Any = self
        self.token = "secret"

    async def SendStepActionEvent(self, event: Any, metadata: Any, **options: Any) -> None:
        assert dict(metadata) == {"authorization": "bearer secret"}
        assert options["timeout"] > 0
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


class Dispatcher(DispatcherServicer):
    """An engine of another day: it knows the message of several ends, or does not."""

    def __init__(self, *, knows: bool = True, hangs: bool = False) -> None:
        self.said: list[Any] = []
        self._knows, self._hangs = knows, hangs

    async def SendBatchActionEvent(self, request: Any, context: Any) -> ActionEventResponse:
        if self._hangs:
            await asyncio.Event().wait()
        if not self._knows:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        self.said.append((dict(context.invocation_metadata())["authorization"], request))
        return ActionEventResponse()


async def say_to(
    dispatcher: Dispatcher, listener: SimpleNamespace, *ends: ActionEvent
) -> SimpleNamespace:
    server = grpc.aio.server()
    add_DispatcherServicer_to_server(dispatcher, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    process = listener.of(Told())
    process.running_step_runs.update({end.action.step_run_id: 1.0 for end in ends})
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            process.dispatcher_client.aio_client = DispatcherStub(channel)
            await process.send_event(Ends(list(ends)))
    finally:
        await server.stop(None)
    return process


_ENDS = [event_of("a/0", COMPLETED, '{"y": 1}'), event_of("b/2", COMPLETED, '{"y": 2}')]
_ONE_BY_ONE = [("a/0", COMPLETED, '{"y": 1}', False), ("b/2", COMPLETED, '{"y": 2}', False)]


def test_several_ends_are_said_in_one_message(listener: SimpleNamespace) -> None:
    dispatcher, before = Dispatcher(), time.time()
    process = asyncio.run(say_to(dispatcher, listener, *_ENDS))
    ((secret, said),) = dispatcher.said
    assert (secret, said.worker_id, said.event_type) == ("bearer secret", "w", COMPLETED)
    assert [
        (item.task_run_external_id, item.retry_count, item.event_payload) for item in said.items
    ] == [("a", 0, '{"y": 1}'), ("b", 2, '{"y": 2}')]
    assert before <= said.event_timestamp.ToNanoseconds() / 1e9 <= time.time()
    assert (process.sent, process.running_step_runs) == ([], {})


@pytest.mark.parametrize("engine", [{"knows": False}, {"hangs": True}])
def test_an_engine_that_does_not_take_the_message_is_told_one_by_one(
    listener: SimpleNamespace, engine: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk_process, "_PATIENCE", 0.2)
    dispatcher = Dispatcher(**engine)
    process = asyncio.run(say_to(dispatcher, listener, *_ENDS))
    assert dispatcher.said == []
    # Awaited, not begun only: the process may be at its end.
    assert process.dispatcher_client.sdks_way == _ONE_BY_ONE
    assert process.running_step_runs == {}


def test_ends_before_there_is_a_connection_go_the_way_of_the_sdk(
    listener: SimpleNamespace,
) -> None:
    process = listener.of(Told())
    process.dispatcher_client.aio_client = None
    asyncio.run(process.send_event(Ends(_ENDS)))
    assert process.dispatcher_client.sdks_way == _ONE_BY_ONE


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
        return await process._get_event(timeout_seconds=LONG)

    assert asyncio.run(read()) == STOP_LOOP
