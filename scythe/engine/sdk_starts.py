"""Tells the engine once that a task has started: the SDK says it twice.

Once when it hears of the task and once when it begins with it, milliseconds apart. Each costs the
engine about a twentieth of a leaf that does nothing.
"""

from __future__ import annotations

from typing import Any


def say_starts_once() -> None:
    """Leave out the second message from now on. For the process of the SDK that sends them."""
    from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
    from hatchet_sdk.contracts.dispatcher_pb2 import STEP_EVENT_TYPE_STARTED

    dispatcher: Any = DispatcherClient
    send, said = dispatcher.send_step_action_event, set[str]()

    async def send_once(self: Any, action: Any, event: Any, *args: Any, **options: Any) -> Any:
        was_said = action.key in said  # a try of a task; a node that goes on is told again
        said.discard(action.key)
        if event == STEP_EVENT_TYPE_STARTED:
            if was_said:
                return None
            said.add(action.key)
        return await send(self, action, event, *args, **options)

    dispatcher.send_step_action_event = send_once
