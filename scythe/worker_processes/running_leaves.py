"""Records the running leaves of a worker process, so that its supervisor knows them if it dies."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from typing import Any

_MOST = 2048  # most leaves of a process that are recorded
_NAME_BYTES = 80


class _Entry(ctypes.Structure):
    _fields_ = (
        ("since", ctypes.c_double),
        ("is_alone", ctypes.c_bool),
        ("name", ctypes.c_char * _NAME_BYTES),
    )


@dataclass(frozen=True, slots=True)
class RunningLeaf:
    """A running leaf or batch.

    Attributes:
        name: Its id.
        since: Its start by the monotonic clock.
        is_alone: Whether no other leaf runs in its worker process.
    """

    name: str
    since: float
    is_alone: bool


@dataclass(frozen=True, slots=True)
class Suspect:
    """A leaf or batch that was running when its worker process died.

    Attributes:
        deaths: Number of processes that died while it ran.
        seconds: The shortest time for which it had been running then.
        is_guilty: Whether it ran alone at one of these deaths.
    """

    deaths: int = 0
    seconds: float = float("inf")
    is_guilty: bool = False


class RunningLeaves:
    """The running leaves of a worker process, in memory that outlives it.

    The process writes; its supervisor reads after the process has died.
    """

    def __init__(self) -> None:
        self._entries: Any = RawArray(_Entry, _MOST)

    def add(self, leaf: RunningLeaf) -> int:
        """Record a leaf; return its index, or -1 if the table is full."""
        free = (place for place, entry in enumerate(self._entries) if not entry.name)
        place = next(free, -1)
        if place >= 0:
            entry = self._entries[place]
            entry.since = leaf.since
            entry.is_alone = leaf.is_alone
            entry.name = leaf.name.encode()[
                : _NAME_BYTES - 1
            ]  # written last, because it makes the entry valid
        return place

    def share(self, place: int) -> None:
        """Record that other leaves run beside this one from now on."""
        if place >= 0:
            self._entries[place].is_alone = False

    def remove(self, place: int) -> None:
        """Remove a leaf that has ended."""
        if place >= 0:
            self._entries[place].name = b""

    def read(self) -> list[RunningLeaf]:
        """Return the running leaves."""
        return [
            RunningLeaf(entry.name.decode(errors="replace"), entry.since, entry.is_alone)
            for entry in self._entries
            if entry.name
        ]

    def clear(self) -> None:
        """Remove all leaves."""
        for place in range(_MOST):
            self.remove(place)


def with_death(
    suspects: Mapping[str, Suspect], running: Sequence[RunningLeaf], now: float
) -> dict[str, Suspect]:
    """Return the suspects after the death of a process.

    Args:
        suspects: The suspects of earlier deaths.
        running: The leaves that were running in the process.
        now: The time of its death.
    """
    known = dict(suspects)
    for leaf in running:
        before = known.get(leaf.name, Suspect())
        known[leaf.name] = Suspect(
            before.deaths + 1,
            min(before.seconds, now - leaf.since),
            before.is_guilty or leaf.is_alone,
        )
    return known
