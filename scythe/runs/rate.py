"""The rate of a run in the last minutes of its work."""

from __future__ import annotations

from collections import deque

from scythe.status import RunStatus

_WINDOW_SECONDS = 120.0
_LEAST_SECONDS = 5.0  # of which a rate says something
_LEAST_ENDS = 5  # for which the window gets longer, where leaves are slow


class RecentRate:
    """Adds the rate of the last minutes to the statuses of one run.

    Where the run waits for a worker, say, the time does not count.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def added_to(self, status: RunStatus) -> RunStatus:
        """Return the status with the rate, once that is known."""
        if status.is_over or status.waits_for or not status.started:
            self._samples.clear()
            return status
        samples, ended = self._samples, status.done + status.failed
        if not samples or status.updated > samples[-1][0]:
            samples.append((status.updated, ended))
        oldest = status.updated - _WINDOW_SECONDS
        while len(samples) > 1 and samples[1][0] <= oldest and ended - samples[1][1] >= _LEAST_ENDS:
            samples.popleft()
        seconds = status.updated - samples[0][0]
        if seconds < _LEAST_SECONDS or ended == samples[0][1]:
            return status
        return status.model_copy(update={"recent_rate": (ended - samples[0][1]) / seconds})
