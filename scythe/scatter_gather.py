"""Scatter and gather: the task that runs all specs of an experiment."""

from __future__ import annotations

from typing import Any

from scythe.nodes.models import NODE_TASK, ScatterGatherInput, ScatterGatherResult
from scythe.nodes.references import start_root
from scythe.nodes.tree import RecursionMap, RecursionSpec

__all__ = [
    "RecursionMap",
    "RecursionSpec",
    "ScatterGather",
    "ScatterGatherInput",
    "ScatterGatherResult",
    "scatter_gather",
]


class ScatterGather:
    """The scatter/gather task, as it is seen from a script."""

    name = NODE_TASK
    input_validator_type = ScatterGatherInput
    output_validator_type = ScatterGatherResult

    def run_no_wait(self, payload: ScatterGatherInput, **metadata: Any) -> Any:
        """Start a tree and return a reference with `result()` and `aio_result()`."""
        from scythe.nodes.known_tasks import make_nodes_known

        make_nodes_known()
        return start_root(payload, metadata)

    def run(self, payload: ScatterGatherInput, **metadata: Any) -> ScatterGatherResult:
        """Start a tree and wait for its result."""
        return self.run_no_wait(payload, **metadata).result()

    async def aio_run(self, payload: ScatterGatherInput, **metadata: Any) -> ScatterGatherResult:
        """Start a tree and await its result."""
        return await self.run_no_wait(payload, **metadata).aio_result()


scatter_gather = ScatterGather()
