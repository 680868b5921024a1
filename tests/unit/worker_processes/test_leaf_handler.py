"""A leaf's task: from Hatchet's input to the executor's call, and the outcome back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.engine.tasks import LeafError, TaskRun
from scythe.errors import ExecutorUnavailable, LeafFailed
from scythe.executor import Capacity
from scythe.labels import ScytheWorkerLabel
from scythe.leaf.batch import BatchPlace, run_batch
from scythe.leaf.journal import count_leaves, write_line
from scythe.leaf.log import LeafLog
from scythe.leaf.run import run_leaf
from scythe.messages import LeafInput, LeafRecord, decode_batch, decode_failure, decode_result
from scythe.outcomes import (
    BatchResult,
    FailureKind,
    LeafCall,
    LeafFailure,
    LeafReply,
    LeafResources,
    LeafResult,
)
from scythe.registry import ExperimentRegistry
from scythe.settings import ScytheStorageSettings
from scythe.specs.file import specs_table
from scythe.storage.fetch import cached_path
from scythe.storage.files import join_s3_uri
from scythe.tables.names import ORDER
from scythe.tables.packs import read_pack
from scythe.worker_processes.leaf_handler import LeafHandler


async def extend(more: timedelta) -> None:
    """Nothing waits for more time here."""


RUN = TaskRun("run-1", 2, extend)


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

    async def run(self, call: LeafCall) -> LeafReply:
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
    executor = Here(LeafFailure(FailureKind.NODE_LOST, "Gone", "gone"))
    with pytest.raises(LeafError):
        asyncio.run(LeafHandler(served, executor)(payload(row=12), RUN))
    call = executor.calls[0]
    assert (call.spec, call.spec_row) == ("", ("p/e/v1.0.0/d/specs.pq", 12))


def test_a_failure_goes_back_whole_and_is_tried_again() -> None:
    with pytest.raises(Exception, match="ZeroDivisionError") as caught:
        asyncio.run(LeafHandler(served, Here())(payload(x=0), RUN))
    record = decode_failure(str(caught.value))
    assert isinstance(record.outcome, LeafFailure)
    assert (record.outcome.kind, record.attempts) == (FailureKind.APPLICATION, 2)
    assert "1 / spec.x" in record.outcome.traceback
    assert isinstance(caught.value, LeafError)


@pytest.mark.parametrize("kind", FailureKind)
def test_what_cannot_help_is_not_tried_again(kind: FailureKind) -> None:
    executor = Here(LeafFailure(kind, "NodeDied", "gone"))
    with pytest.raises(Exception, match="NodeDied: gone") as caught:
        asyncio.run(LeafHandler(served, executor)(payload(), RUN))
    assert (type(caught.value).__name__ == "NonRetryableException") == kind.is_final


class Extended:
    """Notes for how much more time a batch asks."""

    def __init__(self) -> None:
        self.more: list[timedelta] = []

    async def __call__(self, more: timedelta) -> None:
        self.more.append(more)


@pytest.fixture
def stored_specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five specs, where the copy of the bucket's file would be; the third one cannot be run."""
    monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path))
    specs = [In(experiment_id="e/v1.0.0/d", sort_index=10 * i, x=i - 2) for i in range(5)]
    table = specs_table([s.index_data() for s in specs], [s.model_dump_json() for s in specs])
    path = cached_path(join_s3_uri("b", "p/e/v1.0.0/d/specs.pq"), "http://127.0.0.1:1")
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")


def batch(rows: tuple[int, int]) -> LeafInput:
    return payload().model_copy(update={"spec": "", "rows": rows, "queued": 5.0})


class BatchHere(Here):
    """Runs batches in this process; some leaves end it instead, as a journal tells."""

    def __init__(self, folder: Path, ends: Sequence[tuple[int, FailureKind]] = ()) -> None:
        super().__init__()
        self.folder, self.ends = folder, list(ends)

    async def run(self, call: LeafCall) -> LeafReply:
        self.calls.append(call)
        assert call.batch is not None
        over, stop = count_leaves(call.batch.journal), call.batch.n_leaves
        kind = None
        if self.ends and self.ends[0][0] >= over:
            stop, kind = self.ends.pop(0)
        rows = (call.batch.rows[0], call.batch.rows[0] + stop)
        child = replace(call.batch, rows=rows, journal=b"")
        journal = call.batch.journal
        if kind is not None:
            for row in range(rows[0] + over, rows[1]):
                outcome = run_leaf(replace(call, spec=text_of(row)))
                assert isinstance(outcome, LeafResult)
                journal += write_line(LeafRecord(outcome, 1, f"run-1-{row}"))
            raise LeafFailed(LeafFailure(kind, kind.value, "ended"), journal)
        child = replace(call.batch)
        log = LeafLog(self.folder / "log")
        place = BatchPlace(self.folder / "journal", str(self.folder), log, lambda seconds: True)
        with log:
            outcome = run_batch(call, child, place)
        if isinstance(outcome, LeafFailure):
            raise LeafFailed(outcome)
        return outcome


def text_of(row: int) -> str:
    return In(experiment_id="e/v1.0.0/d", sort_index=10 * row, x=row - 2).model_dump_json()


def run_batch_of(
    executor: Here, rows: tuple[int, int], run: TaskRun = RUN
) -> tuple[BatchResult, dict[str, pa.Table]]:
    output = asyncio.run(LeafHandler(served, executor)(batch(rows), run))
    result = decode_batch(json.loads(json.dumps(output)))
    tables: dict[str, pa.Table] = {}
    for pack in result.packs:
        assert isinstance(pack, bytes)
        tables |= dict(read_pack(pack))
    return result, tables


@pytest.mark.usefixtures("stored_specs")
def test_each_leaf_of_a_batch_fails_and_is_tried_again_alone(tmp_path: Path) -> None:
    executor, more = BatchHere(tmp_path), Extended()
    result, tables = run_batch_of(executor, (1, 5), TaskRun("run-1", 1, more))
    assert (result.n_leaves, result.n_failed) == (4, 1)
    assert tables["scalars"].column("y").to_pylist() == [-1.0, 1.0, 0.5]
    leaves = tables["leaves"]
    assert leaves.column("attempts").to_pylist() == [1, 2, 1, 1]
    assert leaves.column("workflow_run_id").to_pylist() == [f"run-1-{row}" for row in (1, 2, 3, 4)]
    assert leaves.column("sort_index").to_pylist() == [10, 20, 30, 40]
    assert leaves.column(ORDER).to_pylist() == [1, 2, 3, 4]
    assert tables["errors"].column("type").to_pylist() == ["ZeroDivisionError"]
    assert len(executor.calls) == 1
    assert more.more == [timedelta(seconds=90) * 4 * 2]


@pytest.mark.usefixtures("stored_specs")
@pytest.mark.parametrize(
    ("ends", "attempts", "kinds", "calls"),
    [
        # (the leaf that ends its process, why) for one process after another
        ([(3, FailureKind.WORKER_CRASH)], [1, 1, 2, 1, 1], ["application_error"], 2),
        ([(1, FailureKind.TIMEOUT)] * 2, [1, 2, 2, 1, 1], ["timeout", "application_error"], 3),
        (
            [(0, FailureKind.WORKER_CRASH), (1, FailureKind.TIMEOUT), (1, FailureKind.TIMEOUT)],
            [1, 2, 2, 1, 1],
            ["timeout", "application_error"],
            4,
        ),
    ],
)
def test_a_leaf_that_ends_its_process_costs_only_itself(
    tmp_path: Path,
    ends: list[tuple[int, FailureKind]],
    attempts: list[int],
    kinds: list[str],
    calls: int,
) -> None:
    executor = BatchHere(tmp_path, ends)
    if ends[0] == (3, FailureKind.WORKER_CRASH):
        executor.ends = [(2, FailureKind.WORKER_CRASH)]
    result, tables = run_batch_of(executor, (0, 5))
    assert result.n_leaves == 5
    assert tables["leaves"].column("attempts").to_pylist() == attempts
    assert tables["errors"].column("kind").to_pylist() == kinds
    assert len(executor.calls) == calls


@pytest.mark.usefixtures("stored_specs")
def test_a_batch_that_cannot_be_placed_fails_as_a_whole() -> None:
    executor = Here(LeafFailure(FailureKind.INFEASIBLE, "TooBig", "no node has it"))
    with pytest.raises(Exception, match="TooBig: no node has it"):
        asyncio.run(LeafHandler(served, executor)(batch((0, 2)), RUN))
    assert len(executor.calls) == 1


class Prints(Here):
    """Its leaves have printed something."""

    async def run(self, call: LeafCall) -> LeafReply:
        said = f"says {call.leaf_id.split('-')[0]}"
        try:
            result = await super().run(call)
            assert isinstance(result, LeafResult)
            return replace(result, log=said)
        except LeafFailed as error:
            raise LeafFailed(replace(error.failure, log=said)) from None


def test_what_leaves_print_goes_to_hatchets_log_and_not_into_their_outcome() -> None:
    logs: list[str] = []
    run = TaskRun("run-1", 1, extend, logs.append)
    output = asyncio.run(LeafHandler(served, Prints())(payload(), run))
    assert "says" not in json.dumps(output)
    with pytest.raises(LeafError) as caught:
        asyncio.run(LeafHandler(served, Prints())(payload(x=0), run))
    failed = decode_failure(str(caught.value)).outcome
    assert isinstance(failed, LeafFailure)
    assert failed.log == ""
    assert logs == ["says 00000007"] * 2


@ExperimentRegistry.Register()
def chatty(spec: In) -> Out:
    if spec.sort_index % 20 == 0:
        os.write(1, f"says {spec.sort_index}\n".encode())  # pytest has another `sys.stdout`
    return Out(y=spec.x)


@pytest.mark.usefixtures("stored_specs")
def test_the_log_of_a_batch_names_its_leaves(tmp_path: Path) -> None:
    logs: list[str] = []
    run = TaskRun("run-1", 1, extend, logs.append)
    executor = BatchHere(tmp_path, [(2, FailureKind.WORKER_CRASH)])
    output = asyncio.run(LeafHandler(chatty, executor)(batch((0, 5)), run))
    assert "says" not in json.dumps(output)
    assert logs == ["Leaf 20:\nsays 20\n\nLeaf 40:\nsays 40\n"]
