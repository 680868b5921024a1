"""The arguments of `allocate`."""

from __future__ import annotations

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

    def __post_init__(self) -> None:
        _check_priority(self.priority)


def _check_priority(given: Any) -> None:
    is_number = isinstance(given, int) and not isinstance(given, bool)
    if given is not None and not (is_number and 1 <= given <= _HIGHEST):
        raise SpecError(
            f"priority={given!r} is not a priority of Hatchet: give 1 (low), 2 or 3 (first), or "
            "leave it out."
        )
