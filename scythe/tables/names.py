"""The columns that Scythe adds to tables."""

from __future__ import annotations

EXPERIMENT_ID = "experiment_id"
SORT_INDEX = "sort_index"
SUB_INDEX = "sort_subindex"
ORDER = "__order__"  # the leaf's row in the specs: tables are merged by it, then it is dropped
