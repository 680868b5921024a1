"""A leaf's task: from Hatchet's input to the executor's call, and the outcome back."""

from __future__ import annotations

import asyncio
import json

import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import ExecutorUnavailable, LeafFailed
from scythe.executor import Capacity
from scythe.labels import ScytheWorkerLabel
from scythe.leaf import run_leaf
from scythe.messages import LeafInput, decode_failure, decode_result
from scythe.outcomes import FailureKind, LeafCall, LeafFailure, LeafResources, LeafResult
from scythe.registry import ExperimentRegistry
from scythe.serve import LeafHandler
from scythe.settings import ScytheStorageSettings
from scythe.tasks import TaskRun

RUN = TaskRun("run-1", 2, {})


class In(ExperimentInputSpec):
    x: float


class Out(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Register(
    execution_timeout="90s",
    schedule_timeout="2h",
    resources=LeafResources(cpus=2),
    desired_worker_labels=ScytheWorkerLabel.HIGH_CPU.worker_label,
)
def served(spec: In) -> Out:
    return Out(y=1 / spec.x)


class Here:
    """The shortest executor there is: it runs leaves in this process."""

    capacity = Capacity(slots=1, source="this process")

    def __init__(self, lost: LeafFailure | None = None) -> None:
        self.calls: list[LeafCall] = []
        self.lost = lost

    async def run(self, call: LeafCall) -> LeafResult:
        self.calls.append(call)
        if self.lost:
            raise ExecutorUnavailable(self.lost)
        outcome = run_leaf(call)
        if isinstance(outcome, LeafFailure):
            raise LeafFailed(outcome)
        return outcome

    async def aclose(self) -> None:
        """Nothing to close."""


def payload(x: float = 4.0, row: int | None = None) -> LeafInput:
    spec = In(experiment_id="e/v1.0.0/d", sort_index=7, x=x)
    return LeafInput(
        spec="" if row is not None else spec.model_dump_json(),
        spec_row=row,
        experiment_id=spec.experiment_id,
        sort_index=7,
        root_workflow_run_id="root",
        storage_settings=ScytheStorageSettings(BUCKET="b", BUCKET_PREFIX="p"),
    )


def test_the_call_says_all_that_the_executor_needs() -> None:
    executor = Here()
    output = asyncio.run(LeafHandler(served, executor)(payload(), RUN))
    record = decode_result(json.loads(json.dumps(output)))
    assert isinstance(record.outcome, LeafResult)
    assert json.loads(record.outcome.scalars) == {"y": 0.25}
    assert (record.attempts, record.workflow_run_id) == (2, "run-1")
    call = executor.calls[0]
    assert call.leaf_id == "00000007-run-1"
    assert (call.timeout, call.schedule_timeout, call.attempt) == (90.0, 7200.0, 2)
    assert (call.resources.cpus, call.labels) == (2, {"high_cpu": "yes"})
    assert (call.store.bucket, call.store.prefix) == ("b", "p")
    assert (call.workflow_run_id, call.root_workflow_run_id) == ("run-1", "root")


def test_a_large_spec_is_named_by_its_row() -> None:
    call = LeafHandler(served, Here())._call(payload(row=12), RUN)
    assert (call.spec, call.spec_row) == ("", ("p/e/v1.0.0/d/specs.pq", 12))


def test_a_failure_goes_back_whole_and_is_tried_again() -> None:
    with pytest.raises(Exception, match="ZeroDivisionError") as caught:
        asyncio.run(LeafHandler(served, Here())(payload(x=0), RUN))
    record = decode_failure(str(caught.value))
    assert isinstance(record.outcome, LeafFailure)
    assert (record.outcome.kind, record.attempts) == (FailureKind.APPLICATION, 2)
    assert "1 / spec.x" in record.outcome.traceback
    assert type(caught.value).__name__ == "LeafError"


@pytest.mark.parametrize("kind", FailureKind)
def test_what_cannot_help_is_not_tried_again(kind: FailureKind) -> None:
    executor = Here(LeafFailure(kind, "NodeDied", "gone"))
    with pytest.raises(Exception, match="NodeDied: gone") as caught:
        asyncio.run(LeafHandler(served, executor)(payload(), RUN))
    assert (type(caught.value).__name__ == "NonRetryableException") == kind.is_final
