"""Converts the outputs of leaf tasks, as Hatchet returns them, to the outcomes of leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from scythe.engine.run_tasks import TaskEnd
from scythe.errors import ScytheError
from scythe.messages import (
    CANCELLED,
    SENTINEL,
    LeafRecord,
    decode_batch,
    decode_failure,
    decode_result,
)
from scythe.outcomes import BatchResult, FailureKind, LeafFailure
from scythe.scatter.tree import Rows
from scythe.scatter.user_tasks import plain_record

TaskOutput = dict[str, Any] | BaseException


def batch_of(output: TaskOutput) -> BatchResult | None:
    """Read the output of a batch's task; None if it has no result."""
    if isinstance(output, dict) and output.get(SENTINEL) == "batch":
        return decode_batch(output)
    return None


def record_of(output: TaskOutput) -> LeafRecord:
    """Read the output of a leaf's task, or the exception with which it failed.

    An output without the sentinel comes from a Hatchet task of the user; an empty one, from a
    cancelled task.
    """
    if isinstance(output, BaseException):
        return decode_failure(error_text(output))
    if output.get(SENTINEL) == "done":
        return decode_result(output)
    return _plain_record(output) if output else LeafRecord(CANCELLED, 0, None)


def counts_of(output: TaskOutput, n_leaves: int) -> tuple[int, int]:
    """Return how many leaves of a task ended well, and how many failed.

    The sum is smaller than `n_leaves` for a batch whose run was paused.

    Args:
        output: Its output, or its exception.
        n_leaves: The number of its leaves.
    """
    if isinstance(output, BaseException) or not output:
        return 0, n_leaves
    if output.get(SENTINEL) != "batch":
        return n_leaves, 0
    return output["n_leaves"] - output["n_failed"], output["n_failed"]


def was_cancelled(output: TaskOutput) -> bool:
    """Return whether Hatchet cancelled a task."""
    if isinstance(output, BaseException):
        return record_of(output).outcome == CANCELLED
    return not output


def is_mismatch(output: TaskOutput) -> bool:
    """Return whether a task met a worker with other code than the run's."""
    if not isinstance(output, BaseException):
        return False
    outcome = record_of(output).outcome
    return isinstance(outcome, LeafFailure) and outcome.kind.is_mismatch


def encode_ends(ends: Mapping[Rows, TaskOutput], queued: float) -> bytes:
    """Write the ends of tasks, except of those that were cancelled.

    Args:
        ends: The output of each task, or its exception, by its rows.
        queued: When the tasks were handed to Hatchet, in seconds since 1970.
    """
    known = [
        [rows.start, rows.stop, error_text(output) if isinstance(output, BaseException) else output]
        for rows, output in ends.items()
        if not was_cancelled(output)
    ]
    return json.dumps({"queued": queued, "ends": known}).encode()


def decode_ends(data: bytes) -> list[TaskEnd]:
    """Read what `encode_ends` made."""
    document = json.loads(data)
    return [
        TaskEnd(
            workflow_run_id="",
            rows=(start, stop),
            state="FAILED" if isinstance(output, str) else "COMPLETED",
            output=output,
            created=document["queued"],
            has_started=True,
            finished=0.0,
        )
        for start, stop, output in document["ends"]
    ]


def error_text(error: BaseException) -> str:
    """Return the text of an exception, or of all exceptions of a group."""
    inner: Sequence[Any] = getattr(error, "exceptions", ()) or (error,)
    return "\n".join(str(item) for item in inner)


def _plain_record(output: dict[str, Any]) -> LeafRecord:
    """Read the output of the user's own task; if it is invalid, the leaf has failed."""
    try:
        return plain_record(output)
    except (ScytheError, ValueError, TypeError) as error:
        message = f"the task's output is no experiment output: {error}"
        failure = LeafFailure(FailureKind.APPLICATION, type(error).__name__, message[:2000])
        return LeafRecord(failure, 1, None)
