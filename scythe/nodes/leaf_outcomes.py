"""Outputs of leaf tasks, as Hatchet gives them, turned into the outcomes of leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scythe.errors import ScytheError
from scythe.messages import (
    CANCELLED,
    SENTINEL,
    LeafRecord,
    decode_batch,
    decode_failure,
    decode_result,
)
from scythe.nodes.plain_tasks import plain_record
from scythe.outcomes import BatchResult, FailureKind, LeafFailure

TaskOutput = dict[str, Any] | BaseException


def batch_of(output: TaskOutput) -> BatchResult | None:
    """Read the output of the task of a batch; None where it gave no result."""
    if isinstance(output, dict) and output.get(SENTINEL) == "batch":
        return decode_batch(output)
    return None


def record_of(output: TaskOutput) -> LeafRecord:
    """Read the output of a leaf's task, or the exception of one that failed.

    One without our sentinel is that of a task of the user's; empty, that of a cancelled task.
    """
    if isinstance(output, BaseException):
        return decode_failure(error_text(output))
    if output.get(SENTINEL) == "done":
        return decode_result(output)
    return _plain_record(output) if output else LeafRecord(CANCELLED, 0, None)


def error_text(error: BaseException) -> str:
    """Return the text of an exception, of all in a group."""
    inner: Sequence[Any] = getattr(error, "exceptions", ()) or (error,)
    return "\n".join(str(item) for item in inner)


def _plain_record(output: dict[str, Any]) -> LeafRecord:
    """Read the output of a task of the user's; one that cannot be read is that leaf's failure."""
    try:
        return plain_record(output)
    except (ScytheError, ValueError, TypeError) as error:
        message = f"the task's output is not that of an experiment: {error}"
        failure = LeafFailure(FailureKind.APPLICATION, type(error).__name__, message[:2000])
        return LeafRecord(failure, 1, None)
