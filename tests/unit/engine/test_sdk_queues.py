"""The messages that a worker sends to the SDK's process."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hatchet_sdk.runnables.action import ActionPayload
from hatchet_sdk.utils.typing import STOP_LOOP
from hatchet_sdk.worker.action_listener_process import (
    QueuedBatchActionEvent,
    WorkerActionListenerProcess,
)

from scythe.engine import sdk_queues
from scythe.engine.sdk_process import Ends
from scythe.engine.sdk_queues import TaskEvents
from tests.unit.engine.sdk_events import COMPLETED, FAILED, LONG, STARTED, Told, event_of

_SPAWN = multiprocessing.get_context("spawn")


def nobody() -> int:
    """No task waits for a place."""
    return 0


def test_of_a_short_task_only_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_queues, "SHORT", LONG)
    told = Told()

    async def run() -> None:
        events = TaskEvents(told, 2, nobody)
        for key, kind in (
            *(("a/0", STARTED), ("b/0", STARTED), ("a/0", FAILED)),
            *(("a/1", STARTED), ("b/0", COMPLETED), ("a/1", FAILED)),
        ):
            events.put(event_of(key, kind, "given" if kind != STARTED else None))

    asyncio.run(run())
    assert told.kinds == [("a/0", FAILED), ("a/1", FAILED), ("b/0", COMPLETED)]
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
        events, before = TaskEvents(told, 2, nobody), time.time_ns()
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
        events = TaskEvents(told, 2, nobody)
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
        events = TaskEvents(told, 2, nobody)
        events.put(event_of("n/0", STARTED))
        events.put(event_of("n/0", STARTED))
        events.put(event_of("other/0", STARTED))
        while (await told.hear()).action.key != "other/0":
            pass

    asyncio.run(run())
    assert told.kinds == [("n/0", STARTED), ("other/0", STARTED)]


def put_all(events: TaskEvents, *what: tuple[str, Any]) -> None:
    for key, kind in what:
        events.put(event_of(key, kind, None if kind == STARTED else f"of {key}"))


def keys_of(event: Any) -> list[str]:
    together = event.events if isinstance(event, Ends) else [event]
    return [one.action.key for one in together]


STARTS = [(key, STARTED) for key in ("a/0", "b/1", "c/0")]


def test_short_tasks_that_end_together_are_told_as_one() -> None:
    told = Told()

    async def run() -> None:
        events = TaskEvents(told, 3, nobody)
        put_all(events, *STARTS, ("b/1", COMPLETED), ("a/0", COMPLETED))
        assert told.events == []
        put_all(events, ("c/0", COMPLETED))

    asyncio.run(run())
    (ends,) = told.events
    assert isinstance(ends, Ends)
    assert keys_of(ends) == ["b/1", "a/0", "c/0"]
    assert [one.payload for one in ends.events] == ["of b/1", "of a/0", "of c/0"]
    assert (ends.action, ends.type) == (ends.events[0].action, COMPLETED)
    assert {one.action.action_payload.model_dump_json() for one in ends.events} == {
        ActionPayload().model_dump_json()
    }


def test_an_end_does_not_wait_for_a_task_that_goes_on() -> None:
    told = Told()

    async def run() -> None:
        events = TaskEvents(told, 3, nobody)
        put_all(events, *STARTS, ("a/0", COMPLETED))
        assert keys_of(await told.hear()) == ["a/0"]
        put_all(events, ("b/1", COMPLETED), ("c/0", COMPLETED))

    asyncio.run(run())
    assert [keys_of(event) for event in told.events] == [["a/0"], ["b/1", "c/0"]]
    assert not isinstance(told.events[0], Ends)


def test_a_failure_is_told_at_once_and_frees_those_who_waited_for_it() -> None:
    told = Told()

    async def run() -> None:
        events = TaskEvents(told, 3, nobody)
        put_all(events, *STARTS, ("a/0", COMPLETED), ("b/1", FAILED))
        assert told.kinds == [("b/1", FAILED)]
        put_all(events, ("c/0", FAILED))

    asyncio.run(run())
    assert told.kinds == [("b/1", FAILED), ("c/0", FAILED), ("a/0", COMPLETED)]


def test_the_end_of_a_long_task_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_queues, "SHORT", 0.0)
    told = Told()

    async def run() -> None:
        events = TaskEvents(told, 3, nobody)
        put_all(events, STARTS[0])
        await told.hear()
        put_all(events, STARTS[1], ("a/0", COMPLETED))
        assert told.kinds == [("a/0", STARTED), ("a/0", COMPLETED)]

    asyncio.run(run())


def test_ends_are_told_together_while_others_wait_for_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sdk_queues, "SHORT", 0.0)
    monkeypatch.setattr(sdk_queues, "_LATEST_WITH_MORE", LONG)
    told, waiting = Told(), [2]

    async def run() -> None:
        events = TaskEvents(told, 4, lambda: waiting[-1])
        put_all(events, *STARTS)
        for _ in STARTS:
            await told.hear()
        told.events.clear()
        for key in ("a/0", "b/1"):
            waiting.append(1)
            put_all(events, (key, COMPLETED))
            assert told.events == []
        waiting.append(0)
        put_all(events, ("c/0", COMPLETED))

    asyncio.run(run())
    assert [keys_of(event) for event in told.events] == [["a/0", "b/1", "c/0"]]


def test_an_end_is_told_although_others_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_queues, "_LATEST_WITH_MORE", 0.05)
    told = Told()

    async def run() -> None:
        events = TaskEvents(told, 4, lambda: 1)
        put_all(events, *STARTS, ("a/0", COMPLETED))
        assert told.events == []
        assert keys_of(await told.hear()) == ["a/0"]

    asyncio.run(run())


def test_what_is_held_is_told_before_the_last_message() -> None:
    told = Told()

    async def run() -> None:
        events = TaskEvents(told, 3, nobody)
        put_all(events, *STARTS, ("a/0", COMPLETED), ("b/1", COMPLETED))
        events.put(STOP_LOOP)

    asyncio.run(run())
    assert keys_of(told.events[0]) == ["a/0", "b/1"]
    assert told.events[1:] == [STOP_LOOP]


def test_no_message_is_larger_than_the_engine_takes() -> None:
    told, large = Told(), "x" * 600_000

    async def run() -> None:
        events = TaskEvents(told, 9, nobody)
        keys = [f"{n}/0" for n in range(9)]
        put_all(events, *((key, STARTED) for key in keys))
        for key in keys:
            events.put(event_of(key, COMPLETED, large))

    asyncio.run(run())
    assert [len(keys_of(event)) for event in told.events] == [1] * 9
    assert [keys_of(event) for event in told.events] == [[f"{n}/0"] for n in range(9)]


class Clock:
    """An event loop whose time is set, and which tells how late calls are wanted."""

    def __init__(self) -> None:
        self.now, self.waits = 1000.0, list[float]()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Any, *args: Any) -> SimpleNamespace:
        return self.call_at(self.now + delay, call)

    def call_at(self, when: float, call: Any) -> SimpleNamespace:
        if call.__name__ == "_tell_held":
            self.waits.append(when - self.now)
        return SimpleNamespace(cancel=lambda: None, when=lambda: when)


def test_how_long_an_end_may_wait_follows_from_how_soon_a_slot_has_its_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(sdk_queues, "asyncio", SimpleNamespace(get_running_loop=lambda: clock))
    waiting = 0
    events = TaskEvents(Told(), 2, lambda: waiting)
    put_all(events, ("goes on/0", STARTED))

    def end(name: str, at: float) -> None:
        clock.now = 1000.0 + at
        put_all(events, (f"{name}/0", STARTED), (f"{name}/0", COMPLETED))

    for n, at in enumerate([0.0, 0.02, 0.06, 0.1, 5.0]):
        end(f"{n}", at)
        events.put(STOP_LOOP)  # tells it
    # Of two slots one had its last end two ends ago.
    assert clock.waits == pytest.approx([0.025, 0.025, 0.006, 0.008, 0.025])
    waiting, clock.waits = 1, []
    end("more", 5.01)
    waiting = 0
    end("no more", 5.02)
    end("soon", 5.021)
    assert clock.waits == pytest.approx([1.0, 0.002])  # the third one goes with the second one


def test_other_messages_pass() -> None:
    told = Told()
    events = TaskEvents(told, 2, nobody)
    batch = QueuedBatchActionEvent(action=event_of("a/0", STARTED).action, type=STARTED, items=[])
    for message in (STOP_LOOP, batch):
        events.put(message)
    assert told.events == [STOP_LOOP, batch]


def _put_back(events: Any, answers: Any) -> None:
    """In the other process: tell what has arrived there."""
    changed = WorkerActionListenerProcess.__init__.__module__
    answers.put((type(events).__module__, changed))


def test_the_other_process_gets_the_queue_of_the_sdk_and_says_what_it_is_told() -> None:
    queue, answers = _SPAWN.Queue(), _SPAWN.Queue()
    other = _SPAWN.Process(target=_put_back, args=(TaskEvents(queue, 1, nobody), answers))
    other.start()
    try:
        assert answers.get(timeout=LONG) == ("multiprocessing.queues", "scythe.engine.sdk_process")
    finally:
        other.join(LONG)
        for one in (queue, answers):
            one.close()
            one.join_thread()
    assert other.exitcode == 0
