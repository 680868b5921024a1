"""Scatter and gather: the task that runs all specs of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scythe.base import ExperimentOutputSpec
from scythe.scatter.models import (
    NODE_TASK,
    GatheredExperimentRuns,
    ScatterGatherInput,
    ScatterGatherResult,
)
from scythe.scatter.references import read_tree
from scythe.scatter.registration import make_nodes_known, scatter_task
from scythe.scatter.standalone import HatchetTask
from scythe.scatter.tree import RecursionMap, RecursionSpec
from scythe.utils.results import sift_results, transpose_dataframe_dict

__all__ = [
    "GatheredExperimentRuns",
    "RecursionMap",
    "RecursionSpec",
    "ScatterGather",
    "ScatterGatherInput",
    "ScatterGatherResult",
    "combine_experiment_outputs",
    "scatter_gather",
    "sift_results",
]


def combine_experiment_outputs(
    experiment_outputs: Sequence[ExperimentOutputSpec],
) -> ExperimentOutputSpec:
    """Put the tables of several outputs together, by name."""
    tables = transpose_dataframe_dict([output.dataframes for output in experiment_outputs])
    return ExperimentOutputSpec(dataframes=tables)


class ScatterGather(HatchetTask[ScatterGatherResult]):
    """The scatter/gather task, with all that a Hatchet `Standalone` offers."""

    name = NODE_TASK
    input_validator_type = ScatterGatherInput
    output_validator_type = ScatterGatherResult

    def make_standalone(self) -> Any:
        """Make the task that a worker serves which was made with Hatchet's SDK."""
        from scythe.scatter.node_task import run_node

        return scatter_task(run_node)

    def make_known(self) -> None:
        """Register the task with the engine, if no worker has done so."""
        make_nodes_known()

    def payload(self, given: Any) -> ScatterGatherInput:
        """Return the input of a root."""
        return ScatterGatherInput.model_validate(given)

    def metadata(self, payload: ScatterGatherInput) -> dict[str, Any]:
        """Return the metadata by which the tasks of the run are found."""
        names = {"experiment_id": payload.experiment_id, "experiment_name": payload.task_name}
        return {**names, "level": 0}

    def read_output(
        self,
        output: dict[str, Any],
        sent: str | None,  # noqa: ARG002
    ) -> ScatterGatherResult:
        """Read the result of a tree."""
        return read_tree(output)


scatter_gather = ScatterGather()
