"""Messages of `allocate`: that a run has started, and what Ctrl-C has left."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager

from scythe.processes.interrupts import RunInterrupted

logger = logging.getLogger("scythe.runs.allocate")


@contextmanager
def interruptible() -> Generator[None]:
    """Say of a Ctrl-C that comes before the run is started that nothing was."""
    try:
        yield
    except RunInterrupted:
        raise
    except KeyboardInterrupt:
        raise RunInterrupted("allocate was interrupted: nothing was started.") from None


def announce(run_id: str, leaves: str = "") -> None:
    """Log that a run has started, and the commands for it; on standard error without logging.

    Args:
        run_id: Its `experiment_id`.
        leaves: Which leaves it runs, where that is not all.
    """
    text = f"Started {run_id}{leaves and f': {leaves}'}. "
    text += f"Watch it: scythe watch {run_id}. Cancel it: scythe cancel {run_id}"
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info(text)
    elif logger.isEnabledFor(logging.WARNING):
        print(f"scythe: {text}", file=sys.stderr)  # noqa: T201 - how to go on with the run
