"""Name the command that runs the failed leaves of a run again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scythe.outcomes import FailureKind

_OWN_KINDS = frozenset(
    {
        FailureKind.APPLICATION,
        FailureKind.TIMEOUT,
        FailureKind.OUT_OF_MEMORY,
        FailureKind.WORKER_CRASH,
    }
)


def is_own_failure(failure: Mapping[str, Any]) -> bool:
    """Return whether a leaf's own code, or what that needs, ended it.

    Args:
        failure: Has the `kind` and the `type` of the failure.
    """
    return failure["kind"] in _OWN_KINDS and failure["type"] != "WorkerLost"


def retry_advice(run_id: str, failures: Iterable[Mapping[str, Any]]) -> str:
    """Return a sentence with the command that runs failed leaves again; empty without failures.

    Args:
        run_id: The `experiment_id` of a run that is over.
        failures: Have the `kind` and the `type` of each failure, or of each group of failures.
    """
    found = {is_own_failure(failure) for failure in failures}
    if not found:
        return ""
    if found == {True}:
        return f"Run the failed leaves again: scythe retry {run_id}"
    if found == {False}:
        return f"Run the missing leaves again: scythe retry {run_id} --missing"
    return f"Run the failed and missing leaves again: scythe retry {run_id} --failed --missing"
