"""Events of a pool process, as the worker sees them."""

from __future__ import annotations

from dataclasses import dataclass

from scythe.outcomes import LeafFailure


class ProcessLost(Exception):  # noqa: N818 - an event, not an error
    """The process ended, or its channel broke."""


class LeafTimeout(Exception):  # noqa: N818 - an event, not an error
    """The leaf exceeded its time limit."""


class StartFailed(Exception):  # noqa: N818 - an event, not an error
    """The process cannot import the worker's script, or the leaf's code took too long to import."""

    def __init__(self, failure: LeafFailure | None = None) -> None:
        self.failure = failure
        super().__init__(failure)


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a pool process.

    Attributes:
        status: Its exit code, negative for the signal that ended it; None when it is not known.
        stacks: The stacks of its threads, as written by `faulthandler`.
        peak_rss: Its peak resident memory in bytes.
        journal: The journal of its batch, see `scythe.leaf.journal`; None without a batch.
        log: The output of its leaf.
    """

    status: int | None
    stacks: str
    peak_rss: int
    journal: bytes | None = None
    log: str = ""
