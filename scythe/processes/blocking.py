"""Calls that may block for ever: whoever waits for one can give up, and the process can end."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_call(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread of its own, which does not keep the process from ending.

    Returns:
        Its result or exception. To give up waiting for it ends nothing: the call goes on.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # cancelling a waiter must not cancel the call

    def call() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(call,), name="scythe-call", daemon=True).start()
    return outcome


def call_within(seconds: float, function: Callable[[], T], give_up: Callable[[], Exception]) -> T:
    """Call a function, and give up after so many seconds, whatever it waits for.

    Args:
        seconds: How long it may take.
        function: It goes on in a thread when it is late.
        give_up: Makes the exception that is raised then.
    """
    outcome = start_call(function)
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():  # raised by the function itself
            raise
    raise give_up()
