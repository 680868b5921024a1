"""The process with which Python frees semaphores that a killed process has left in /dev/shm."""

from __future__ import annotations

import sys
from multiprocessing import resource_tracker


def start_tracker() -> None:
    """Start that process, unless it runs, without its warning of each semaphore that it frees.

    Call it before the first semaphore is made: Python would start it with the warning.
    """
    before = list(sys.warnoptions)
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions[:] = before
