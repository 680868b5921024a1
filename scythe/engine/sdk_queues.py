"""Queues to the SDK's action-listener process: fewer events and no threads.

The SDK sends the start of a task twice, milliseconds apart: when the listener process receives the
task, and when the worker starts it. Each event costs the engine about a twentieth of a no-op leaf,
and the two processes as much again, and only Hatchet's dashboard uses it. So a start is sent once,
with its true time, and not at all for a task that ends within `SHORT`.

Ends of short tasks that come soon after each other are sent in one message. The engine then also
stores them, frees their slots and assigns the next tasks together, which saves a tenth to a third
of its time. While leaves wait in the worker, the same is done with tasks of any length, since the
waiting leaves keep all CPUs busy.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scythe.engine.sdk_process import Ends, next_in, say_what_is_told

SHORT = 0.25  # seconds; the start of a shorter task is not sent
_LATER = 0.1  # longest delay of an end, as a share of the mean time between two ends of a slot
_LATEST = 0.025  # seconds, the longest delay of an end
_LATEST_WITH_MORE = 1.0  # the same while leaves wait in the worker
_MUCH = 1 << 20  # characters of one message; the engine's limit is 4 MiB


def talk_less(worker: Any, slots: int, waiting: Callable[[], int]) -> None:
    """Replace the queues between a worker and its listener process.

    Args:
        worker: The SDK's worker, before its start.
        slots: Number of tasks that it may have at one time.
        waiting: Returns the number of its tasks that wait in the executor.
    """
    from hatchet_sdk.worker.runner.run_loop_manager import WorkerActionRunLoopManager

    async def next_action(self: Any) -> Any:
        return await next_in(self.action_queue)

    events = TaskEvents(worker._event_queue, slots, waiting)  # noqa: SLF001 - there is no public hook
    worker._event_queue = events  # noqa: SLF001
    manager: Any = WorkerActionRunLoopManager
    manager._get_action = next_action  # noqa: SLF001


class TaskEvents:
    """Coalesces task events before they are sent to the engine.

    Args:
        queue: The SDK's queue.
        slots: Number of tasks that the worker may have at one time.
        waiting: Returns the number of its tasks that wait in the executor.
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
        self._young: dict[str, asyncio.TimerHandle] = {}  # attempts that began less than SHORT ago
        self._ends: deque[float] = deque(maxlen=slots + 1)  # times of the last ends
        self._held: list[Any] = []  # ends that are not sent yet
        self._n_held = 0  # characters
        self._telling: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        """Delegate all else to the queue."""
        return getattr(self._queue, name)

    def __reduce__(self) -> Any:
        """Unpickle as the plain queue, and patch the listener."""
        return _arrived, (self._queue,)

    def put(self, event: Any) -> None:
        """Send an event; a start only if the task runs on for a while."""
        if not isinstance(event, self._kind):
            self._tell_held()  # the last message ends the queue
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
        """Return the seconds for which ends may be held after one more."""
        if self._waiting():
            return _LATEST_WITH_MORE
        if not (self._young and is_short):
            return 0.0  # no other end is expected soon, or a CPU would idle for too long
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
        """Send the held ends after at most this many seconds."""
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
        # Leave out the task's input, which may be large.
        known = event.action.model_copy(update={"action_payload": self._no_input})
        return replace(event, action=known)


def _arrived(queue: Any) -> Any:
    say_what_is_told()
    return queue
