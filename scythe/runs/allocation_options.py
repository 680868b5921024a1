"""The arguments of `allocate`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from scythe.errors import SpecError
from scythe.scatter.tree import RecursionMap
from scythe.storage.layout import RunLayout

_HIGHEST = 3  # priority of Hatchet


@dataclass(frozen=True, slots=True)
class AllocationOptions:
    """The arguments of `allocate`, which describes them."""

    overwrite_sort_index: bool = True
    overwrite_experiment_id: bool = True
    recursion_map: RecursionMap | None = None
    batch_size: int = 1
    strict: bool = False
    reuse: RunLayout | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    priority: Literal[1, 2, 3] | None = None
    max_failures: float | None = None

    def __post_init__(self) -> None:
        _check_priority(self.priority)
        _check_max_failures(self.max_failures)

    def most_failures(self, n_leaves: int) -> int | None:
        """Return how many leaves of a run may fail; None for all.

        Args:
            n_leaves: The number of all its leaves.
        """
        given = self.max_failures
        return math.floor(given * n_leaves) if isinstance(given, float) else given


def _check_priority(given: Any) -> None:
    is_number = isinstance(given, int) and not isinstance(given, bool)
    if given is not None and not (is_number and 1 <= given <= _HIGHEST):
        raise SpecError(
            f"priority={given!r} is not a priority of Hatchet: give 1 (low), 2 or 3 (first), or "
            "leave it out."
        )


def _check_max_failures(given: Any) -> None:
    if given is None or (isinstance(given, float) and 0 <= given < 1):
        return
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise SpecError(
            f"max_failures={given!r} is not a number of leaves: give a whole number, 0 or more, or "
            "a share of all leaves such as 0.1."
        )
