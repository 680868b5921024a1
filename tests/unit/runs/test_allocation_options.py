"""The arguments of `allocate` are checked before anything is uploaded."""

from __future__ import annotations

from typing import Any

import pytest

from scythe.errors import SpecError
from scythe.runs.allocation_options import AllocationOptions


@pytest.mark.parametrize("priority", [None, 1, 2, 3])
def test_priorities_of_hatchet_are_taken(priority: Any) -> None:
    assert AllocationOptions(priority=priority).priority == priority


@pytest.mark.parametrize("priority", [0, 4, True, 1.0, "high"])
def test_other_priorities_are_refused(priority: Any) -> None:
    with pytest.raises(SpecError, match=r"priority=.* is not a priority .*give 1 \(low\), 2 or 3"):
        AllocationOptions(priority=priority)


@pytest.mark.parametrize(
    ("given", "most"), [(None, None), (0, 0), (1, 1), (7, 7), (0.0, 0), (0.1, 2), (0.99, 24)]
)
def test_failures_are_counted_or_a_share_of_all_leaves(given: Any, most: int | None) -> None:
    assert AllocationOptions(max_failures=given).most_failures(25) == most


@pytest.mark.parametrize("given", [-1, 1.0, 2.5, -0.1, True, "10 %", float("nan")])
def test_other_numbers_of_failures_are_refused(given: Any) -> None:
    with pytest.raises(SpecError, match=r"max_failures=.* is not a number of leaves: .*share"):
        AllocationOptions(max_failures=given)
