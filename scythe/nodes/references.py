"""References to what was started in Hatchet: wait for it, and read its result."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from scythe.errors import EngineError, RunTimeoutError
from scythe.messages import find_payload
from scythe.nodes.models import NODE_TASK, ScatterGatherInput, ScatterGatherResult
from scythe.tables.gather import REPORTS

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
_SHORTEST_POLL, _LONGEST_POLL = 0.1, 2.0  # seconds between two looks
_POLL_SHARE = 0.02  # of the time that was waited already
_UNKNOWN_SECONDS = 120.0  # an engine may be away for a restart


class RunRef(Generic[ResultT]):
    """A run that was started in Hatchet.

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
            RunTimeoutError: It was not over in time. It goes on.
            EngineError: The run failed as a whole, or was cancelled.
            LeafFailed: It was a single leaf, and that failed.
        """
        wait_for_end(self.workflow_run_id, timeout)
        return self._read_now()

    async def aio_result(self) -> ResultT:
        """Await the end of the run, and return its result."""
        return await asyncio.to_thread(self._read_now)

    def _read_now(self) -> ResultT:
        from scythe.engine.client import read_result

        output = read_result(self._reference)
        return self._read(output if "error" in output else find_payload(output))


def wait_for_end(workflow_run_id: str, timeout: float | None = None) -> str:
    """Wait until Hatchet says that a run is over, and return its last state.

    Raises:
        RunTimeoutError: It was not over within `timeout` seconds. It goes on.
    """
    from scythe.engine.client import run_state

    began = last_known = time.monotonic()
    deadline = None if timeout is None else began + timeout
    while True:
        state = run_state(workflow_run_id)
        if state not in ("QUEUED", "RUNNING", "UNKNOWN"):
            return state
        if state != "UNKNOWN":
            last_known = time.monotonic()
        elif time.monotonic() - last_known > _UNKNOWN_SECONDS:
            raise EngineError(
                f"The engine has not told the state of run {workflow_run_id} for "
                f"{_UNKNOWN_SECONDS:.0f} s: check that it runs, and that the run is of this engine."
            )
        if deadline is not None and time.monotonic() >= deadline:
            raise RunTimeoutError(
                f"Run {workflow_run_id} is not over after {timeout:g} s (state {state}): it goes "
                "on; wait longer, or see in its log what it waits for."
            )
        pause = _POLL_SHARE * (time.monotonic() - began)
        time.sleep(min(max(pause, _SHORTEST_POLL), _LONGEST_POLL))


def start_root(
    payload: ScatterGatherInput, metadata: Mapping[str, Any]
) -> RunRef[ScatterGatherResult]:
    """Start the root of a tree."""
    from scythe.engine.client import start_run

    reference = start_run(NODE_TASK, payload, {**metadata, "level": 0})
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
    # Scripts of scythe-engine join all tables of a result by the index of the specs.
    results = {name: uri for name, uri in result.uris.items() if name not in REPORTS}
    return result.model_copy(update={"uris": results})


def workflow_reference(reference: Any) -> RunRef[dict[str, Any]]:
    """Make the reference to a run of a Hatchet workflow of the user's."""
    return RunRef(reference, _read_output)


def _read_output(payload: dict[str, Any]) -> dict[str, Any]:
    if set(payload) == {"error"}:
        raise EngineError(f"The workflow failed: {payload['error']}")
    return payload
