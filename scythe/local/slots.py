"""The number of slots of this machine, and the queue of leaves for them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path

_MANY = 8  # from this number of CPUs on, one is left to the system and the worker
_QUOTAS = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def default_slots() -> tuple[int, str]:
    """Return the slots of this machine, and the source of that number as text.

    One slot for each usable CPU; from 8 CPUs on, one less.
    """
    there = os.cpu_count() or 1
    usable = usable_cpus()
    slots = usable if usable < _MANY else usable - 1
    if usable < there:
        return slots, f"{slots} of the {usable} CPUs (of {there}) that this process may use"
    if slots < usable:
        return slots, f"{slots} of the {usable} CPUs of this machine"
    return slots, f"{slots} CPU{'s' if slots > 1 else ''} of this machine"


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use, by affinity and quota."""
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
        # Affinity to all CPUs is no limit, even if `os.cpu_count` is overridden.
        if allowed < os.sysconf("SC_NPROCESSORS_ONLN"):
            counts.append(allowed)
    for files in _QUOTAS:
        with contextlib.suppress(OSError, ValueError):
            words = " ".join(Path(file).read_text() for file in files).split()
            quota = int(words[0])  # "max", or -1, is no quota
            period = int(words[1])
            if quota > 0:
                counts.append(math.ceil(quota / period))
    return max(1, min(counts))


class NoSlotInTimeError(Exception):
    """The slots were not free in time."""


class Slots:
    """A fair queue for slots: requests for several slots are not overtaken by smaller ones.

    Args:
        total: The number of slots.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def held(self, count: int, within: float) -> AsyncGenerator[None]:
        """Hold slots.

        Args:
            count: The number of slots, at most the total.
            within: Seconds to wait for them.

        Raises:
            NoSlotInTimeError: The slots were not free in time.
        """
        await self._acquire(count, within)
        try:
            yield
        finally:
            self._free += count
            self._hand_out()

    async def _acquire(self, count: int, within: float) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, mine))
        self._hand_out()
        try:
            if not mine.done():
                async with asyncio.timeout(within):
                    await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled():
                self._free += count  # granted while the waiter was being cancelled
            else:
                self._waiting = deque(one for one in self._waiting if one[1] is not mine)
            self._hand_out()
            if isinstance(error, TimeoutError):
                raise NoSlotInTimeError from None
            raise

    def _hand_out(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            count, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= count
                turn.set_result(None)
