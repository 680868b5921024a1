"""Queues to the SDK's action-listener process: fewer events and no threads.

The engine is told once that a task has started, and of a short one only that it has ended. The SDK
says a start twice, when that process hears of the task and when the worker begins with it,
milliseconds apart. Each costs the engine about a twentieth of a leaf that does nothing, the two
processes as much again, and is for Hatchet's dashboard alone: there a task that was over within
`SHORT` has no start, a longer one its true one.

Short tasks that end soon after each other are told as one: then the engine also writes them down,
frees their slots and gives out the next ones together, for a tenth to a third less of its time. So
are tasks of any length while leaves wait in the worker for a place to run: these keep all busy.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scythe.engine.sdk_process import Ends, next_in, say_what_is_told

SHORT = 0.25  # seconds
_LATER = 0.1  # of the time after which a slot has its next end: that much later an end may be told
_LATEST = 0.025  # seconds
_LATEST_WITH_MORE = 1.0  # the same while leaves wait in the worker
_MUCH = 1 << 20  # characters; the engine takes messages of 4 MiB


def talk_less(worker: Any, slots: int, waiting: Callable[[], int]) -> None:
    """Have a worker and its process say to each other what is needed, and without threads.

    Args:
        worker: The SDK's worker, not started yet.
        slots: How many tasks it may have at a time.
        waiting: Tells how many of those that it has wait for a place to run.
    """
    from hatchet_sdk.worker.runner.run_loop_manager import WorkerActionRunLoopManager

    async def next_action(self: Any) -> Any:
        return await next_in(self.action_queue)

    events = TaskEvents(worker._event_queue, slots, waiting)  # noqa: SLF001 - no hook is public
    worker._event_queue = events  # noqa: SLF001
    manager: Any = WorkerActionRunLoopManager
    manager._get_action = next_action  # noqa: SLF001


class TaskEvents:
    """The queue from a worker to the SDK's process, as the module says.

    Args:
        queue: The SDK's queue.
        slots: How many tasks the worker may have at a time.
        waiting: Tells how many of those that it has wait for a place to run.
    """

    def __init__(self, queue: Any, slots: int, waiting: Callable[[], int]) -> None:
        from hatchet_sdk.contracts import dispatcher_pb2
        from hatchet_sdk.runnables.action import ActionPayload
        from hatchet_sdk.worker.action_listener_process import ActionEvent

        self._queue = queue
        self._kind = ActionEvent
        self._no_input = ActionPayload()
        self._waiting = waiting
        self._started = dispatcher_pb2.STEP_EVENT_TYPE_STARTED
        self._completed = dispatcher_pb2.STEP_EVENT_TYPE_COMPLETED
        self._young: dict[str, asyncio.TimerHandle] = {}  # tries that began within SHORT
        self._ends: deque[float] = deque(maxlen=slots + 1)  # the times of the last ones
        self._held: list[Any] = []  # ends that are not told yet
        self._n_held = 0  # characters
        self._telling: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what else a queue has."""
        return getattr(self._queue, name)

    def __reduce__(self) -> Any:
        """Arrive in the SDK's process as the SDK's queue, and have it say what it is told."""
        return _arrived, (self._queue,)

    def put(self, event: Any) -> None:
        """Tell the process of an event; of a start only if the task runs on for a while."""
        if not isinstance(event, self._kind):
            self._tell_held()  # the last message says that there are no more
            self._queue.put(event)
            return
        key = event.action.key
        if (before := self._young.pop(key, None)) is not None:
            before.cancel()
        if event.type == self._started:
            start = replace(event, payload=str(time.time_ns()))
            loop = asyncio.get_running_loop()
            self._young[key] = loop.call_later(SHORT, self._tell_start, key, start)
            return
        if event.type == self._completed:
            self._hold(event)
        else:
            self._queue.put(self._bare(event))
        self._tell_later(self._patience(is_short=before is not None))

    def _tell_start(self, key: str, start: Any) -> None:
        del self._young[key]
        self._queue.put(self._bare(start))

    def _patience(self, *, is_short: bool) -> float:
        """Return for how many seconds ends may be held after one more."""
        if self._waiting():
            return _LATEST_WITH_MORE
        if not (self._young and is_short):
            return 0.0  # no other is about to end, or a place may be idle for longer than it pays
        if len(self._ends) < (self._ends.maxlen or 0):
            return _LATEST
        return min(_LATER * (self._ends[-1] - self._ends[0]), _LATEST)

    def _hold(self, end: Any) -> None:
        self._ends.append(asyncio.get_running_loop().time())
        size = len(end.payload or "")
        if self._n_held + size > _MUCH:
            self._tell_held()
        self._held.append(self._bare(end))
        self._n_held += size

    def _tell_later(self, seconds: float) -> None:
        """Tell what is held, at the latest after so many seconds."""
        if not seconds:
            self._tell_held()
        elif self._held:
            loop = asyncio.get_running_loop()
            due = loop.time() + seconds
            if self._telling is not None and self._telling.when() <= due:
                return
            if self._telling is not None:
                self._telling.cancel()
            self._telling = loop.call_at(due, self._tell_held)

    def _tell_held(self) -> None:
        held = self._held
        self._held = []
        self._n_held = 0
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if held:
            self._queue.put(Ends(held) if len(held) > 1 else held[0])

    def _bare(self, event: Any) -> Any:
        # What the task was given is not said again: it may be large.
        known = event.action.model_copy(update={"action_payload": self._no_input})
        return replace(event, action=known)


def _arrived(queue: Any) -> Any:
    say_what_is_told()
    return queue
