"""Which leaves ran in a worker process when it died, as its supervisor finds out."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from typing import Any

_MOST = 2048  # leaves of a process that are noted
_NAME_BYTES = 80


class _Entry(ctypes.Structure):
    _fields_ = (
        ("since", ctypes.c_double),
        ("is_alone", ctypes.c_bool),
        ("name", ctypes.c_char * _NAME_BYTES),
    )


@dataclass(frozen=True, slots=True)
class RunningLeaf:
    """A leaf, or a batch, that is running.

    Attributes:
        name: Its id.
        since: When it began, by the monotonic clock.
        is_alone: Whether no other leaf runs in its worker process.
    """

    name: str
    since: float
    is_alone: bool


@dataclass(frozen=True, slots=True)
class Suspect:
    """A leaf, or a batch, that ran when its worker process died.

    Attributes:
        deaths: How many processes died meanwhile.
        seconds: The shortest time for which it had been running.
        is_guilty: Whether it ran alone at one of these deaths.
    """

    deaths: int = 0
    seconds: float = float("inf")
    is_guilty: bool = False


class RunningLeaves:
    """The leaves that a worker process runs, in memory that outlives it.

    One process writes; its supervisor reads once that process has died.
    """

    def __init__(self) -> None:
        self._entries: Any = RawArray(_Entry, _MOST)

    def add(self, leaf: RunningLeaf) -> int:
        """Note a leaf; return its place, -1 where there is none left."""
        free = (place for place, entry in enumerate(self._entries) if not entry.name)
        place = next(free, -1)
        if place >= 0:
            entry = self._entries[place]
            entry.since = leaf.since
            entry.is_alone = leaf.is_alone
            entry.name = leaf.name.encode()[: _NAME_BYTES - 1]  # last: it makes the entry count
        return place

    def share(self, place: int) -> None:
        """Note that other leaves run beside this one from now on."""
        if place >= 0:
            self._entries[place].is_alone = False

    def remove(self, place: int) -> None:
        """Forget a leaf that is over."""
        if place >= 0:
            self._entries[place].name = b""

    def read(self) -> list[RunningLeaf]:
        """Return the leaves that run now."""
        return [
            RunningLeaf(entry.name.decode(errors="replace"), entry.since, entry.is_alone)
            for entry in self._entries
            if entry.name
        ]

    def clear(self) -> None:
        """Forget all leaves."""
        for place in range(_MOST):
            self.remove(place)


def with_death(
    suspects: Mapping[str, Suspect], running: Sequence[RunningLeaf], now: float
) -> dict[str, Suspect]:
    """Return the suspects after a process died.

    Args:
        suspects: Those of earlier deaths.
        running: The leaves that ran in the process.
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
