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
