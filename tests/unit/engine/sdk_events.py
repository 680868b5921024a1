"""Events of tasks as the SDK has them, for the tests of its queues and its process."""

from __future__ import annotations

import asyncio
from typing import Any

from hatchet_sdk.contracts import dispatcher_pb2
from hatchet_sdk.runnables.action import Action, ActionPayload, ActionType
from hatchet_sdk.worker.action_listener_process import ActionEvent

STARTED = dispatcher_pb2.STEP_EVENT_TYPE_STARTED
COMPLETED = dispatcher_pb2.STEP_EVENT_TYPE_COMPLETED
FAILED = dispatcher_pb2.STEP_EVENT_TYPE_FAILED
LONG = 60.0  # seconds that no test takes


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
        return await asyncio.wait_for(self._news.get(), LONG)

    @property
    def kinds(self) -> list[tuple[str, Any]]:
        return [(event.action.key, event.type) for event in self.events]
