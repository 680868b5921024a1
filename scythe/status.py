"""The counts of a run, as they are stored in `status.json`."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import BaseModel, Field

RunState = Literal["queued", "running", "paused", "done", "failed", "cancelled", "not_started"]


class RunStatus(BaseModel):
    """The progress and the state of a run.

    Attributes:
        experiment_id: `<name>/<version>/<datetime>`.
        workflow_run_id: Hatchet's id of the run, None before it was started.
        state: `queued` before the first node runs; `paused` while no further leaf begins; `done`
            when the final tables are there (also when leaves failed); `cancelled` and `failed` when
            the run was stopped before all leaves had run, by somebody, by a limit or by a fault.
            The tables are there then, too; `not_started` when `allocate` ended before it started
            the run.
        total: Number of leaves.
        done: Leaves that ended well.
        failed: Leaves that failed their last try.
        running: Leaves that run now.
        started: When the first node began, in seconds since 1970; 0 before.
        updated: When these counts were taken, in seconds since 1970.
        message: Why the run was cancelled, failed as a whole, or was not started.
        warnings: A sentence for each column of the final tables that became text.
        waits_for: Why the run gives no news, where that can be told: no worker serves it, say.
        code_mismatches: Leaves that ran with other code than `allocate` saw, as far as is known:
            they are counted when the scatter node above them ends.
        reused: Leaves that are taken from another run. They are among those that are done or have
            failed, but not in the rate.
        recent_rate: Leaves that ended in a second in the last minutes; 0 where that is not known.
    """

    experiment_id: str
    workflow_run_id: str | None = None
    state: RunState = "queued"
    total: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    started: float = 0.0
    updated: float = Field(default_factory=time.time)
    message: str = ""
    warnings: list[str] = []
    waits_for: str = ""
    code_mismatches: int = 0
    reused: int = 0
    recent_rate: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("done", "failed", "cancelled", "not_started")

    @property
    def waiting(self) -> int:
        """Leaves that have not begun."""
        return max(0, self.total - self.done - self.failed - self.running)

    @property
    def rate(self) -> float:
        """Leaves that ended in a second: lately, else on average since the run began."""
        if self.recent_rate:
            return self.recent_rate
        seconds = self.updated - self.started
        ended = max(0, self.done + self.failed - self.reused)
        return ended / seconds if self.started and seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all leaves have ended at this rate; None when that is not known."""
        left = self.total - self.done - self.failed
        return left / self.rate if self.rate > 0 else None

    def __str__(self) -> str:
        why = self.message or self.waits_for
        return f"{self.summary}. {why}" if why else self.summary

    @property
    def summary(self) -> str:
        """State and counts in one line."""
        counts = f"{self.done} done, {self.failed} failed, {self.running} running"
        note = mismatch_note(self.code_mismatches)
        return f"{self.experiment_id}: {self.state}, {counts} of {self.total} leaves{note}"


def mismatch_note(count: int) -> str:
    """Return what is added to the counts of a run whose leaves did not all run the same code."""
    return f", {count} ran with other code than was allocated" if count else ""


class NodeCounts(BaseModel):
    """The counts below one scatter node, for its parent."""

    done: int = 0
    failed: int = 0
    running: int = 0
    code_mismatches: int = 0

    def plus(self, other: NodeCounts) -> NodeCounts:
        """Return the sum of two counts."""
        return NodeCounts(
            done=self.done + other.done,
            failed=self.failed + other.failed,
            running=self.running + other.running,
            code_mismatches=self.code_mismatches + other.code_mismatches,
        )

    def at_least(self, other: NodeCounts) -> NodeCounts:
        """Return these counts, with no fewer leaves over than there were."""
        done = max(self.done, other.done)
        failed = max(self.failed, other.failed)
        return self.model_copy(update={"done": done, "failed": failed})
