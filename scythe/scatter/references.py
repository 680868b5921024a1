"""References to runs in Hatchet: wait for them and read their results."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from scythe.errors import EngineError, RunTimeoutError
from scythe.messages import find_payload
from scythe.processes.blocking import call_within, start_call
from scythe.processes.interrupts import RunInterrupted
from scythe.scatter.models import NODE_TASK, ScatterGatherInput, ScatterGatherResult
from scythe.tables.gather import REPORTS

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
_SHORTEST_POLL = 0.1  # seconds between two requests
_LONGEST_POLL = 2.0  # seconds
_POLL_SHARE = 0.02  # the pause as a share of the time waited so far
_UNKNOWN_SECONDS = 120.0  # without an answer: the engine may be restarting
_GRACE = 1.0  # seconds beyond the timeout, for an answer that is on its way
_MOST_POLLED = 32  # parallel requests of one event loop
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class RunRef(Generic[ResultT]):
    """A run in Hatchet.

    Attributes:
        workflow_run_id: Hatchet's id of the run.
    """

    def __init__(self, reference: Any, read: Callable[[dict[str, Any]], ResultT]) -> None:
        self._reference = reference
        self._read = read
        self.workflow_run_id: str = reference.workflow_run_id

    def __str__(self) -> str:
        return self.workflow_run_id

    def result(self, timeout: float | None = None) -> ResultT:
        """Wait for the run to end, and return its result.

        Args:
            timeout: Seconds to wait at most; None to wait as long as the run takes.

        Raises:
            RunTimeoutError: The run did not end in time. It continues.
            EngineError: The run failed as a whole, or was cancelled.
            LeafFailed: The run was a single leaf, which failed.
        """
        ends = _EndWatch(self.workflow_run_id, timeout)

        def wait() -> ResultT:
            while not ends.is_over():
                time.sleep(ends.pause)
            return self._read_now()

        try:
            if timeout is None:
                return wait()
            return call_within(timeout + _GRACE, wait, ends.timeout_error)
        except KeyboardInterrupt:
            raise RunInterrupted(f"The run continues: {self.workflow_run_id}.") from None

    async def aio_result(self) -> ResultT:
        """Await the end of the run, and return its result."""
        ends = _EndWatch(self.workflow_run_id, None)
        # Not in the loop's thread pool: a call that hangs would prevent the loop from closing.
        async with _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_MOST_POLLED)):
            while True:
                if await asyncio.wrap_future(start_call(ends.is_over)):
                    return await asyncio.wrap_future(start_call(self._read_now))
                await asyncio.sleep(ends.pause)

    def _read_now(self) -> ResultT:
        from scythe.engine.client import read_result

        output = read_result(self._reference)
        return self._read(output if "error" in output else find_payload(output))


class _EndWatch:
    """Polls Hatchet for the end of a run.

    Args:
        run_id: Hatchet's id of the run.
        timeout: Seconds from now until it gives up; None for never.
    """

    def __init__(self, run_id: str, timeout: float | None) -> None:
        self._run_id = run_id
        self._timeout = timeout
        self._state = "UNKNOWN"
        self._began = self._last_known = time.monotonic()

    @property
    def pause(self) -> float:
        """Seconds until the next request; longer, the longer the run takes."""
        pause = _POLL_SHARE * (time.monotonic() - self._began)
        return min(max(pause, _SHORTEST_POLL), _LONGEST_POLL)

    def is_over(self) -> bool:
        """Ask Hatchet once.

        Raises:
            RunTimeoutError: The timeout has passed, and the run has not ended.
            EngineError: The engine refuses the token, or has not given the state for 120 s.
        """
        from scythe.engine.client import run_state

        self._state = run_state(self._run_id)
        if self._state not in ("QUEUED", "RUNNING", "UNKNOWN"):
            return True
        now = time.monotonic()
        if self._state != "UNKNOWN":
            self._last_known = now
        elif now - self._last_known > _UNKNOWN_SECONDS:
            raise EngineError(
                f"The engine has not reported the state of run {self._run_id} for "
                f"{_UNKNOWN_SECONDS:.0f} s. Check that it is running and has this run."
            )
        if self._timeout is not None and now - self._began >= self._timeout:
            raise self.timeout_error()
        return False

    def timeout_error(self) -> RunTimeoutError:
        """Return the error of a run that did not end in time."""
        return RunTimeoutError(
            f"Run {self._run_id} has not ended after {self._timeout:g} s (state {self._state}) and "
            "continues. Wait longer, or see in its log what it is waiting for."
        )


def start_root(
    payload: ScatterGatherInput, metadata: Mapping[str, Any]
) -> RunRef[ScatterGatherResult]:
    """Start the root of a tree."""
    from scythe.engine.client import start_run

    reference = start_run(NODE_TASK, payload, {**metadata, "level": 0}, payload.priority)
    return RunRef(reference, read_tree)


def read_tree(payload: dict[str, Any]) -> ScatterGatherResult:
    """Read the output of the root of a tree.

    Raises:
        EngineError: The run failed as a whole, or was cancelled.
    """
    if "uris" not in payload:
        reason = payload.get("error", "it was cancelled")
        raise EngineError(f"The run failed as a whole: {reason}")
    result = ScatterGatherResult.model_validate(payload)
    if result.n_failed:
        logger.warning("%s: see final/errors.pq", result.summary)
    elif result.code_mismatches:
        logger.warning("%s: see the column `code` of final/leaves.pq", result.summary)
    # Scripts for scythe-engine join all tables of a result on the spec index.
    results = {name: uri for name, uri in result.uris.items() if name not in REPORTS}
    return result.model_copy(update={"uris": results})


def workflow_reference(reference: Any) -> RunRef[dict[str, Any]]:
    """Return a reference to a run of the user's own Hatchet workflow."""
    return RunRef(reference, _read_output)


def _read_output(payload: dict[str, Any]) -> dict[str, Any]:
    if set(payload) == {"error"}:
        raise EngineError(f"The workflow failed: {payload['error']}")
    return payload
