"""Tells the engine once that a task has started, and of a short one only that it has ended.

The SDK says a start twice, when it hears of the task and when it begins with it, milliseconds
apart. Each costs the engine about a twentieth of a leaf that does nothing, and is for Hatchet's
dashboard alone: there a task that was over within `SHORT` has no start, a longer one its true one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

SHORT = 0.25  # seconds


def say_starts_of_long_tasks() -> None:
    """Leave out the other messages from now on. For the process of the SDK that sends them."""
    from google.protobuf.timestamp_pb2 import Timestamp
    from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
    from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_STARTED

    dispatcher: Any = DispatcherClient
    send, young = dispatcher.send_step_action_event, dict[str, asyncio.Event]()

    async def send_what_counts(self: Any, action: Any, event: Any, *args: Any, **more: Any) -> Any:
        key = action.key  # of a try
        if event != STEP_EVENT_TYPE_STARTED:
            if key in young:
                young.pop(key).set()
            return await send(self, action, event, *args, **more)
        if key in young:
            return None
        started, ended = Timestamp(), young.setdefault(key, asyncio.Event())
        started.GetCurrentTime()
        with suppress(TimeoutError):
            async with asyncio.timeout(SHORT):
                await ended.wait()
        young.pop(key, None)
        if ended.is_set():
            return None
        if self.aio_client is not None:
            with suppress(Exception):  # the SDK's own way says what is wrong, and tries again
                return await _say_start(self, action, started)
        return await send(self, action, event, *args, **more)

    dispatcher.send_step_action_event = send_what_counts


async def _say_start(client: Any, action: Any, started: Any) -> Any:
    """Say a start with its time: the SDK's own function would give it the time of the message."""
    from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_STARTED, StepActionEvent
    from hatchet_sdk.utils.api_auth import create_authorization_header

    event = StepActionEvent(
        worker_id=action.worker_id,
        job_id=action.job_id,
        job_run_id=action.job_run_id,
        task_id=action.step_id,
        task_run_external_id=action.step_run_id,
        action_id=action.action_id,
        event_timestamp=started,
        event_type=STEP_EVENT_TYPE_STARTED,
        retry_count=action.retry_count,
        should_not_retry=False,
    )
    metadata = create_authorization_header(client.token)
    return await client.aio_client.SendStepActionEvent(event, metadata=metadata)
