"""Patches for the SDK's action-listener process, which exchanges messages with the engine.

The patched process sends exactly the events that the worker puts into its queue (`sdk_queues`),
several ends in one message, and reads that queue in its event loop.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import Any

_PATIENCE = 10.0  # seconds, the timeout of one message


@dataclass(frozen=True, slots=True)
class Ends:
    """The successful ends of several tasks.

    Attributes:
        events: The SDK's event of each, at least one.
    """

    events: list[Any]

    @property
    def action(self) -> Any:
        """The action of the first one, for the SDK's log."""
        return self.events[0].action

    @property
    def type(self) -> Any:
        """The type that all of these events share."""
        return self.events[0].type


async def next_in(queue: Any, seconds: float | None = None) -> Any:
    """Return the next item of a `multiprocessing` queue, without a thread.

    Args:
        queue: The queue, which has no other reader.
        seconds: Seconds to wait; None for ever.

    Raises:
        Empty: No item came in time.
    """
    loop = asyncio.get_running_loop()
    pipe = queue._reader.fileno()  # noqa: SLF001
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


def say_what_is_told() -> None:
    """Patch the SDK's listener so that it sends only the worker's events to the engine."""
    from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_STARTED
    from hatchet_sdk.worker.action_listener_process import WorkerActionListenerProcess

    listener: Any = WorkerActionListenerProcess
    make = listener.__init__
    send = listener.send_event

    def with_own_queue(self: Any, *args: Any, **more: Any) -> None:
        make(self, *args, **more)
        self.event_queue = _HeardEvents(self.event_queue, self.running_step_runs)

    async def next_event(self: Any, timeout_seconds: float) -> Any:
        return await next_in(self.event_queue, timeout_seconds)

    async def send_told(self: Any, event: Any, retry_attempt: int = 1) -> None:
        if isinstance(event, Ends):
            for one in event.events:
                self.running_step_runs.pop(one.action.step_run_id, None)
            await _say_ends(self.dispatcher_client, event.events)
            return
        self.running_step_runs.pop(event.action.step_run_id, None)
        moment = getattr(event, "payload", None) if event.type == STEP_EVENT_TYPE_STARTED else None
        if moment is not None:
            await _say_start(self.dispatcher_client, event.action, int(moment))
        else:
            await send(self, event, retry_attempt)

    listener.__init__ = with_own_queue
    listener.send_event = send_told
    listener._get_event = next_event  # noqa: SLF001


class _HeardEvents:
    """The worker's event queue, in the process that reads it.

    Args:
        queue: The SDK's queue.
        unheard: Receives the arrival time of each task until the worker's first event about it.
            The SDK uses it to warn about a worker that does not start its tasks.
    """

    def __init__(self, queue: Any, unheard: dict[str, float]) -> None:
        self._queue = queue
        self._unheard = unheard

    def __getattr__(self, name: str) -> Any:
        """Delegate all else to the queue."""
        return getattr(self._queue, name)

    def put(self, event: Any) -> None:
        """Record the arrival of a task instead of sending its start."""
        note = self._unheard.__setitem__  # immediately, the SDK would count it as running
        asyncio.get_running_loop().call_soon(note, event.action.step_run_id, time.time())


async def _say_start(client: Any, action: Any, started: int) -> None:
    """Send the start of a task with its true time, in place of the time of the message."""
    from google.protobuf.timestamp_pb2 import Timestamp
    from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_STARTED, StepActionEvent

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
        event_type=STEP_EVENT_TYPE_STARTED,
        retry_count=action.retry_count,
        should_not_retry=False,
    )
    if not await _say(client, "SendStepActionEvent", event):
        await client.send_step_action_event(action, STEP_EVENT_TYPE_STARTED, None, False)


async def _say_ends(client: Any, events: list[Any]) -> None:
    """Send the ends of several tasks in one message, or one each to engines before v0.98."""
    from google.protobuf.timestamp_pb2 import Timestamp
    from hatchet_sdk.contracts.dispatcher_pb2 import BatchActionEvent, BatchActionEventItem

    moment = Timestamp()
    moment.GetCurrentTime()
    first = events[0]
    message = BatchActionEvent(
        worker_id=first.action.worker_id,
        job_id=first.action.job_id,
        action_id=first.action.action_id,
        event_timestamp=moment,
        event_type=first.type,
        items=[
            BatchActionEventItem(
                task_run_external_id=event.action.step_run_id,
                event_payload=event.payload,
                retry_count=event.action.retry_count,
            )
            for event in events
        ],
    )
    if not await _say(client, "SendBatchActionEvent", message):
        say = client.send_step_action_event
        await asyncio.gather(*[say(one.action, one.type, one.payload, False) for one in events])


async def _say(client: Any, name: str, message: Any) -> bool:
    """Send a message to the engine once; return whether it succeeded.

    After a failure, the SDK's own method sends it, with retries and its error messages.
    """
    from hatchet_sdk.utils.api_auth import create_authorization_header

    if client.aio_client is None:
        return False
    try:
        send = getattr(client.aio_client, name)
        metadata = create_authorization_header(client.token)
        await send(message, metadata=metadata, timeout=_PATIENCE)
    except Exception:  # noqa: BLE001 - any failure falls back to the SDK
        return False
    return True
