"""Writes the log of a worker's processes to standard error unless the user configured logging."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)-7s {label}: %(message)s"
_TIME = "%Y-%m-%d %H:%M:%S"
_label: str | None = None


class WorkerLogHandler(logging.StreamHandler):  # type: ignore[type-arg] - generic for the checker only
    """Marks the handler as Scythe's own."""


def configure(label: str) -> None:
    """Write the logger `scythe` to standard error unless another handler exists.

    Args:
        label: Name of the process in its lines (`worker`, `leaf`, `fan`).
    """
    global _label
    _label = label
    logger = logging.getLogger("scythe")
    handler = next((one for one in logger.handlers if isinstance(one, WorkerLogHandler)), None)
    if handler is None:
        if logger.hasHandlers():
            return
        handler = WorkerLogHandler(sys.stderr)
        logger.addHandler(handler)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter(_FORMAT.format(label=label), _TIME))


def label() -> str | None:
    """Return the label that was last configured in this process."""
    return _label
