"""Wait for the end of a run, and give up in time whatever hangs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from scythe.errors import RunTimeoutError
from scythe.processes.blocking import start_call
from scythe.processes.interrupts import KeptInterrupts, RunInterrupted
from scythe.runs.progress_bar import ProgressView
from scythe.status import RunStatus
from scythe.storage.layout import RunLayout

_PAUSE = 0.5  # seconds between two looks at the status
_LEAST_LOOK = 1.0  # seconds for the first look, also where the timeout is shorter
_PATIENCE = 3.0  # seconds for one look before it is said that there is no answer
_ADVICE = "Wait longer, or check that a worker runs that serves this experiment."


class Watch(Protocol):
    """Looks at a run.

    Attributes:
        no_answer: Says who is asked at the moment, for those who wait for an answer in vain.
        stored: The status that the bucket had at the last look, None before.
    """

    no_answer: str
    stored: RunStatus | None

    def look(self) -> RunStatus:
        """Return how far the run is; may block."""
        ...


def wait_for_run(
    watch: Watch,
    layout: RunLayout,
    *,
    view: ProgressView,
    timeout: float | None,
    on_progress: Callable[[RunStatus], object],
) -> RunStatus:
    """Wait until a run is over; see `ExperimentRun.wait`."""
    try:
        with KeptInterrupts() as interrupts, view:
            last: RunStatus | None = None

            def show(status: RunStatus) -> None:
                nonlocal last
                interrupts.check()
                view.show(status)
                if status != last:
                    last = status
                    on_progress(status)

            return _wait(watch, layout, show, timeout)
    except KeyboardInterrupt:
        raise RunInterrupted(
            f"The run continues: {layout.experiment_id}. Cancel it with run.cancel()."
        ) from None


def _wait(
    watch: Watch,
    layout: RunLayout,
    show: Callable[[RunStatus], None],
    timeout: float | None,
) -> RunStatus:
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    status = RunStatus(experiment_id=layout.experiment_id)
    look = start_call(watch.look)
    least = _LEAST_LOOK
    asked = time.monotonic()
    while True:
        left = deadline - time.monotonic()
        try:
            status = look.result(max(least, min(_PATIENCE, left)))
        except TimeoutError:
            if look.done():  # raised by the look itself
                raise
            if not status.total or time.monotonic() >= asked + _PATIENCE:
                latest = status if status.total else watch.stored or status
                status = latest.model_copy(update={"waits_for": watch.no_answer})
        show(status)
        left = deadline - time.monotonic()
        least = 0.0
        if status.is_over:
            return status
        if left <= 0:
            known = status.summary if status.total else f"{layout.experiment_id}: not over"
            reason = status.waits_for or _ADVICE
            raise RunTimeoutError(f"{known} after {timeout:g} s: the run goes on. {reason}")
        if look.done():
            time.sleep(min(_PAUSE, left))
            look = start_call(watch.look)
            asked = time.monotonic()
