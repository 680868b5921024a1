"""Ends processes in which something fails outside of the user's function, and repeats their leaves.

Such a process cannot be trusted, and neither can its messages. It writes a note and exits; the
process that started it decides where the leaf runs next.
"""

from __future__ import annotations

import logging
import re
import traceback
from dataclasses import replace
from os import _exit, write  # as they are before user code runs
from typing import NoReturn

from scythe.errors import LeafFailed
from scythe.leaf.journal import count_leaves
from scythe.leaf.run import has_begun
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafStats

STATUS = 213  # the exit code of such a process
_NOTE = "scythe: this process cannot go on"
_FOUND = re.compile(rf"^{_NOTE} (before|after)\n(.*)\Z", re.MULTILINE | re.DOTALL)
logger = logging.getLogger("scythe.leaf")


def give_up(trace: int, error: BaseException) -> NoReturn:
    """Exit this process after a failure outside of the user's function.

    Args:
        trace: File descriptor for the note.
        error: What was raised.
    """
    try:
        when = "after" if has_begun() else "before"
        text = "".join(traceback.format_exception(error))
        write(trace, f"{_NOTE} {when}\n{text}".encode(errors="backslashreplace"))
    finally:
        _exit(STATUS)


def fault_failure(
    trace: str, stats: LeafStats, log: str = "", status: int | None = None
) -> LeafFailure | None:
    """Return the failure of a leaf whose process gave up; None if the process ended otherwise.

    Args:
        trace: The text with the note.
        stats: The measurements of the leaf.
        log: The output of the leaf.
        status: The exit code of the process, if known.
    """
    found = _FOUND.search(trace)
    if found is None and status != STATUS:
        return None
    if found is None:
        message = (
            "the process could not continue after the function, nor record the reason: the "
            "function must not change the open files and limits of its process"
        )
        return LeafFailure(FailureKind.WORKER_CRASH, "ProcessDamaged", message, "", stats, log)
    when, text = found.groups()
    last = (text.strip().splitlines() or [""])[-1]
    if when == "before":
        kind = FailureKind.ENVIRONMENT
        what = "the leaf could not be prepared in its process"
        advice = "correct the cause on the machine"
    else:
        kind = FailureKind.APPLICATION
        what = "the process could not continue after the function"
        advice = "the function must not change what Python itself needs"
    name = last.partition(":")[0].rpartition(".")[2]
    return LeafFailure(kind, name, f"{what} ({last}): {advice}", text, stats, log)


class Reruns:
    """Reruns of a leaf or batch whose process failed outside the user's function.

    It runs once more, in a process that ran no other leaf. If that fails too, it has failed. A
    batch continues where it was, and each of its leaves gets one rerun.

    Attributes:
        call: The next call to run.

    Args:
        call: The leaf, or batch.
    """

    def __init__(self, call: LeafCall) -> None:
        self.call = call
        self._is_second = False

    def add(self, failure: LeafFailure, journal: bytes | None = None) -> None:
        """Set `call` to the rerun after a failure.

        Args:
            failure: The failure.
            journal: The journal of the batch.

        Raises:
            LeafFailed: It is the second failure.
        """
        batch = self.call.batch
        if batch is not None and journal is not None:
            if count_leaves(journal) > count_leaves(batch.journal):
                self._is_second = False
                batch = replace(batch, attempt=1)
            batch = replace(batch, journal=journal)
        if self._is_second:
            raise LeafFailed(failure, journal)
        self._is_second = True
        resources = replace(self.call.resources, fresh_process=True)
        self.call = replace(self.call, batch=batch, resources=resources)
        logger.warning(
            "Leaf %s: %s. Running it again in a new process.", self.call.leaf_id, failure.summary
        )
