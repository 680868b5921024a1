"""Measures the run time and the peak memory of a leaf, in its own process."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from contextlib import suppress

from scythe.outcomes import LeafStats

_GPUS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_PEAK = b"VmHWM:"
_STATUS_BYTES = 4096
_SHORT = 0.002  # seconds; a shorter leaf cannot use much memory, and measuring would take as long
_MOMENT = 0.05  # seconds for which short leaves share one measured peak

# References from before user code runs, which may replace these functions.
_now = time.monotonic
_write = os.write
_pread = os.pread
_close = os.close


class LeafMeter:
    """Measures one leaf after another in this process; `start` and `stats` take microseconds.

    Uses the monotonic clock, so steps of the wall clock do not matter.

    Attributes:
        code: The code that the leaves run, see `LeafStats.code`.
    """

    def __init__(self) -> None:
        self._node = platform.node()
        self._pid = os.getpid()
        self._gpus = next(filter(None, map(os.environ.get, _GPUS)), "")
        self.code = ""
        self._started = _now()
        self._since = time.time() - self._started  # 1970
        self._last_peak = 0
        self._forgotten = -_MOMENT
        # Only Linux can reset the peak; elsewhere it is the peak of the process.
        self._reset = _open("/proc/self/clear_refs", os.O_WRONLY)
        self._status = _open("/proc/self/status", os.O_RDONLY)

    def start(self) -> float:
        """Record that a leaf begins; return the time of the monotonic clock."""
        self._started = now = _now()
        if not self._forgotten <= now < self._forgotten + _MOMENT:
            self._forget_peak(now)
        return now

    def stats(self) -> LeafStats:
        """Return the measurements of the leaf that began last."""
        finished = _now()
        if finished - self._started > _SHORT or not self._last_peak:
            self._last_peak = self._peak()
            self._forgotten = -_MOMENT
        since = self._since
        return LeafStats(
            self._node,
            self._pid,
            since + self._started,
            since + finished,
            self._last_peak,
            self._gpus,
            self.code,
        )

    def close(self) -> None:
        """Close its files."""
        for descriptor in (self._reset, self._status):
            if descriptor >= 0:
                with suppress(OSError):  # a leaf has closed it
                    _close(descriptor)
        self._reset = self._status = -1

    def _forget_peak(self, now: float) -> None:
        try:
            _write(self._reset, b"5")
            self._forgotten = now
        except OSError:
            self._reset = -1

    def _peak(self) -> int:
        try:
            text = _pread(self._status, _STATUS_BYTES, 0)
            start = text.index(_PEAK) + len(_PEAK)
            return int(text[start : text.index(b"kB", start)]) * 1024
        except (OSError, ValueError):  # not Linux, or the leaf has closed all files
            factor = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return -1
