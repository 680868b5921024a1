"""What a worker and the process through which the SDK talks to the engine say to each other.

The engine is told once that a task has started, and of a short one only that it has ended. The SDK
says a start twice, when that process hears of the task and when the worker begins with it,
milliseconds apart. Each costs the engine about a twentieth of a leaf that does nothing, the two
processes as much again, and is for Hatchet's dashboard alone: there a task that was over within
`SHORT` has no start, a longer one its true one.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from queue import Empty
from typing import Any

SHORT = 0.25  # seconds


def talk_less(worker: Any) -> None:
    """Have a worker and its process say to each other what is needed, and without threads.

    Args:
        worker: The SDK's worker, not started yet.
    """
    from hatchet_sdk.worker.runner.run_loop_manager import WorkerActionRunLoopManager

    async def next_action(self: Any) -> Any:
        return await next_in(self.action_queue)

    worker._event_queue = TaskEvents(worker._event_queue)  # noqa: SLF001 - no hook is public
    manager: Any = WorkerActionRunLoopManager
    manager._get_action = next_action  # noqa: SLF001


async def next_in(queue: Any, seconds: float | None = None) -> Any:
    """Return the next item of a queue between processes that nobody else reads.

    Args:
        queue: The queue, of `multiprocessing`.
        seconds: How long to wait for it; None for ever.

    Raises:
        Empty: There was none for so long.
    """
    loop, pipe = asyncio.get_running_loop(), queue._reader.fileno()  # noqa: SLF001
    there = asyncio.Event()
    loop.add_reader(pipe, there.set)
    try:
        async with asyncio.timeout(seconds):
            while True:
                with suppress(Empty):
                    return queue.get_nowait()
                there.clear()
                await there.wait()
    except TimeoutError:
        raise Empty from None
    finally:
        loop.remove_reader(pipe)


class TaskEvents:
    """The queue from a worker to the SDK's process, without the starts of short tasks.

    Args:
        queue: The SDK's queue.
    """

    def __init__(self, queue: Any) -> None:
        from hatchet_sdk.runnables.action import ActionPayload
        from hatchet_sdk.worker.action_listener_process import ActionEvent

        self._queue, self._kind = queue, ActionEvent
        self._started, self._no_input = _started(), ActionPayload()
        self._young: dict[str, asyncio.TimerHandle] = {}

    def __getattr__(self, name: str) -> Any:
        """Return what else a queue has."""
        return getattr(self._queue, name)

    def __reduce__(self) -> Any:
        """Arrive in the SDK's process as the SDK's queue, and have it say what it is told."""
        return _arrived, (self._queue,)

    def put(self, event: Any) -> None:
        """Tell the process of an event; of a start only if the task runs on for a while."""
        if not isinstance(event, self._kind):
            self._queue.put(event)
            return
        key = event.action.key  # of a try
        if (before := self._young.pop(key, None)) is not None:
            before.cancel()
        if event.type != self._started:
            self._tell(event)
            return
        start = replace(event, payload=str(time.time_ns()))
        later = asyncio.get_running_loop().call_later(SHORT, self._tell_start, key, start)
        self._young[key] = later

    def _tell_start(self, key: str, start: Any) -> None:
        del self._young[key]
        self._tell(start)

    def _tell(self, event: Any) -> None:
        # What the task was given is not said again: it may be large.
        known = event.action.model_copy(update={"action_payload": self._no_input})
        self._queue.put(replace(event, action=known))


def _arrived(queue: Any) -> Any:
    say_what_is_told()
    return queue


def say_what_is_told() -> None:
    """Say no start but those that the worker tells. For the SDK's process."""
    from hatchet_sdk.worker.action_listener_process import WorkerActionListenerProcess

    listener: Any = WorkerActionListenerProcess
    make, send, started = listener.__init__, listener.send_event, _started()

    def with_own_queue(self: Any, *args: Any, **more: Any) -> None:
        make(self, *args, **more)
        self.event_queue = _HeardEvents(self.event_queue, self.running_step_runs)

    async def next_event(self: Any, timeout_seconds: float) -> Any:
        return await next_in(self.event_queue, timeout_seconds)

    async def send_told(self: Any, event: Any, retry_attempt: int = 1) -> None:
        self.running_step_runs.pop(event.action.step_run_id, None)
        moment = getattr(event, "payload", None) if event.type == started else None
        if moment is not None:
            await _say_start(self.dispatcher_client, event.action, int(moment))
        else:
            await send(self, event, retry_attempt)

    listener.__init__, listener.send_event = with_own_queue, send_told
    listener._get_event = next_event  # noqa: SLF001


class _HeardEvents:
    """The same queue where it is read.

    Args:
        queue: The SDK's queue.
        unheard: Takes the time of each task of which the worker has said nothing yet: for the
            SDK's warning, and its health check, of a worker that does not begin with its tasks.
    """

    def __init__(self, queue: Any, unheard: dict[str, float]) -> None:
        self._queue, self._unheard = queue, unheard

    def __getattr__(self, name: str) -> Any:
        """Return what else a queue has."""
        return getattr(self._queue, name)

    def put(self, event: Any) -> None:
        """Note the task of which the engine has just told, whose start is not said."""
        note = self._unheard.__setitem__  # at once the SDK would take it for a task that runs
        asyncio.get_running_loop().call_soon(note, event.action.step_run_id, time.time())


def _started() -> Any:
    from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_STARTED

    return STEP_EVENT_TYPE_STARTED


async def _say_start(client: Any, action: Any, started: int) -> None:
    """Say a start with its time: the SDK's own function would give it the time of the message."""
    from google.protobuf.timestamp_pb2 import Timestamp
    from hatchet_sdk.contracts.dispatcher_pb2 import StepActionEvent
    from hatchet_sdk.utils.api_auth import create_authorization_header

    moment = Timestamp()
    moment.FromNanoseconds(started)
    event = StepActionEvent(
        worker_id=action.worker_id,
        job_id=action.job_id,
        job_run_id=action.job_run_id,
        task_id=action.step_id,
        task_run_external_id=action.step_run_id,
        action_id=action.action_id,
        event_timestamp=moment,
        event_type=_started(),
        retry_count=action.retry_count,
        should_not_retry=False,
    )
    if client.aio_client is not None:
        with suppress(Exception):  # the SDK's own way says what is wrong, and tries again
            metadata = create_authorization_header(client.token)
            await client.aio_client.SendStepActionEvent(event, metadata=metadata)
            return
    await client.send_step_action_event(action, _started(), None, False)
