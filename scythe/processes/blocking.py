"""Calls blocking functions so that a caller can give up and the process can exit."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_call(function: Callable[[], T]) -> Future[T]:
    """Call a function in a daemon thread.

    Returns:
        Its result or exception. Cancelling the wait does not stop the call.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # a cancelled waiter must not cancel the call

    def call() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(call,), name="scythe-call", daemon=True).start()
    return outcome


def call_within(seconds: float, function: Callable[[], T], give_up: Callable[[], Exception]) -> T:
    """Call a function with a timeout.

    Args:
        seconds: The timeout.
        function: Continues in its thread after the timeout.
        give_up: Makes the exception to raise after the timeout.
    """
    outcome = start_call(function)
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():  # raised by the function itself
            raise
    raise give_up()
