"""Processes in which something fails outside of the user's function: they end, and leaves run anew.

Such a process cannot be trusted, nor can what it says. So it only leaves a note and ends; where the
leaf runs next is decided by who started it.
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
    """End this process, as something failed in it outside of the user's function.

    Args:
        trace: The descriptor that takes the note.
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
    """Return the failure of a leaf whose process gave up; None where it ended in another way.

    Args:
        trace: What the process has left.
        stats: Where and how long it ran.
        log: What the leaf has printed.
        status: The exit code of the process, where it is known.
    """
    found = _FOUND.search(trace)
    if found is None and status != STATUS:
        return None
    if found is None:
        message = (
            "the process could not go on after the function, nor write down why: the function must "
            "leave its open files and its limits as they were"
        )
        return LeafFailure(FailureKind.WORKER_CRASH, "ProcessDamaged", message, "", stats, log)
    when, text = found.groups()
    last = (text.strip().splitlines() or [""])[-1]
    if when == "before":
        kind = FailureKind.ENVIRONMENT
        what = "the leaf could not be prepared in its process"
        advice = "correct that on the machine"
    else:
        kind = FailureKind.APPLICATION
        what = "the process could not go on after the function"
        advice = "the function must leave what Python itself needs as it was"
    name = last.partition(":")[0].rpartition(".")[2]
    return LeafFailure(kind, name, f"{what} ({last}): {advice}", text, stats, log)


class Reruns:
    """Reruns of a leaf or batch whose process failed outside the user's function.

    It runs once more, in a process that ran no other leaf; if that fails too, the failure is its
    own. A batch goes on where it was; each of its leaves may fail so once.

    Attributes:
        call: What is to be run next.

    Args:
        call: The leaf, or batch.
    """

    def __init__(self, call: LeafCall) -> None:
        self.call = call
        self._is_second = False

    def add(self, failure: LeafFailure, journal: bytes | None = None) -> None:
        """Make `call` what is to be run after such a failure.

        Args:
            failure: The failure.
            journal: What came of the leaves of the batch.

        Raises:
            LeafFailed: It is the second one.
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
            "Leaf %s: %s. It runs again in a new process.", self.call.leaf_id, failure.summary
        )
