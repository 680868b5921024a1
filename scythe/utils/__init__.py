"""The place where scythe-engine kept its helpers: for files, results and S3."""

from __future__ import annotations

import math


def log_interval(total: int, *, max_logs: int = 20, min_interval: int = 5) -> int:
    """Return after how many of `total` steps a loop should log.

    Args:
        total: The number of steps.
        max_logs: The most messages there should be.
        min_interval: The fewest steps between two messages, where there are more than `max_logs`.
    """
    return max(min_interval, math.ceil(total / max_logs)) if total > max_logs else 1
