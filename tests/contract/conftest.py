"""Fixtures of the contract suite: each executor is opened once, with a loop of its own."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import uuid
from collections.abc import Collection, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scythe.base import ExperimentInputSpec
from scythe.errors import ExecutorError
from scythe.executor import Executor, ExecutorRequest, load_executor_factory
from scythe.experiment import Experiment
from scythe.locate import code_ref
from scythe.outcomes import (
    Batch,
    BatchResult,
    LeafCall,
    LeafFailure,
    LeafReply,
    LeafResources,
    LeafResult,
    StoreConfig,
)
from scythe.specs.codec import encode_spec
from scythe.specs.file import specs_table
from scythe.storage.layout import RunLayout
from scythe.storage.store import open_store
from scythe.tables.packs import read_pack
from tests.contract import experiments

EXECUTORS = ["local", "ray"]  # the names under which they are installed
SLOTS = 2
RUN = f"contract/v1.0.0/{uuid.uuid4().hex}"

T = TypeVar("T")


def call_of(
    experiment: Experiment[Any, Any],
    index: int = 0,
    store: StoreConfig | None = None,
    timeout: float = 60.0,
    resources: LeafResources | None = None,
    **fields: Any,
) -> LeafCall:
    """Make the call of a leaf whose spec has these fields."""
    spec: ExperimentInputSpec = experiment.input_validator_type(
        experiment_id=RUN, sort_index=index, **fields
    )
    return LeafCall(
        leaf_id=f"{index:08d}-{uuid.uuid4().hex[:8]}",
        code=code_ref(experiment),
        spec=encode_spec(spec),
        experiment_id=RUN,
        store=store or StoreConfig(bucket="none"),
        resources=resources or LeafResources(),
        timeout=timeout,
    )


class Harness:
    """An executor, the loop that it belongs to, and short ways to run leaves."""

    def __init__(
        self, executor: Executor, runner: asyncio.Runner, temporary: Path, others: set[int]
    ) -> None:
        self.executor = executor
        self.temporary = temporary
        self.others = others  # processes that were there before
        self._runner = runner

    def call(
        self,
        experiment: Experiment[Any, Any],
        index: int = 0,
        *,
        store: StoreConfig | None = None,
        timeout: float = 60.0,
        resources: LeafResources | None = None,
        **fields: Any,
    ) -> LeafCall:
        """Make the call of a leaf whose spec has these fields."""
        return call_of(experiment, index, store, timeout, resources, **fields)

    def batch(
        self,
        store: StoreConfig,
        folder: Path,
        hows: Sequence[str],
        *,
        tries: int = 1,
        timeout: float = 60.0,
        experiment: Experiment[Any, Any] = experiments.many,
    ) -> LeafCall:
        """Store specs, one for each of these, and make one call."""
        run = f"contract/v1.0.0/{uuid.uuid4().hex}"
        layout = RunLayout(store.prefix, run)
        specs = [
            experiments.Task(experiment_id=run, sort_index=i, folder=str(folder), how=how)
            for i, how in enumerate(hows)
        ]
        table = specs_table([one.index_data() for one in specs], [encode_spec(s) for s in specs])
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=3)
        open_store(store).put_bytes(layout.specs, sink.getvalue().to_pybytes())
        call = self.call(experiment, store=store, timeout=timeout)
        return replace(
            call,
            spec="",
            experiment_id=run,
            workflow_run_id="run",
            batch=Batch(layout.specs, (0, len(specs)), tries=tries),
        )

    def do(self, work: Coroutine[Any, Any, T], within: float = 60.0) -> T:
        """Run a coroutine in the executor's loop."""

        async def limited() -> T:
            async with asyncio.timeout(within):
                return await work

        return self._runner.run(limited())

    def result(self, experiment: Experiment[Any, Any], **fields: Any) -> LeafResult:
        """Run a leaf that must end well."""
        result = self.do(self.executor.run(self.call(experiment, **fields)))
        assert isinstance(result, LeafResult)
        return result

    def failure(self, experiment: Experiment[Any, Any], **fields: Any) -> LeafFailure:
        """Run a leaf that must not end well."""
        return self.failure_of(self.call(experiment, **fields))

    def failure_of(self, call: LeafCall) -> LeafFailure:
        """Run a call that must not end well."""
        with pytest.raises(ExecutorError) as caught:
            self.do(self.executor.run(call))
        return caught.value.failure

    def close(self) -> None:
        """Close the executor; may be called again."""
        self.do(self.executor.aclose())


@pytest.fixture(scope="module", params=EXECUTORS)
def harness(
    request: pytest.FixtureRequest,
    stack_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Harness]:
    """Each executor in turn, with a folder for temporary files that nobody else uses."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is made elsewhere
    others = own_children()
    with tempfile.TemporaryDirectory(prefix="sc-", dir="/tmp") as folder:
        before, own = os.environ.get("TMPDIR"), tempfile.tempdir
        os.environ["TMPDIR"], tempfile.tempdir = folder, None
        os.environ["SCYTHE_RAY_ADDRESS"] = "local"  # whatever else runs on this machine
        try:
            executor = load_executor_factory(request.param)(ExecutorRequest(slots=SLOTS))
            with asyncio.Runner() as runner:
                harness = Harness(executor, runner, Path(folder), others)
                try:
                    yield harness
                finally:
                    harness.close()
        finally:
            tempfile.tempdir = own
            del os.environ["SCYTHE_RAY_ADDRESS"]
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


@pytest.fixture(scope="session")
def store(stack_env: dict[str, str]) -> StoreConfig:
    """The bucket of the local stack."""
    return StoreConfig(
        bucket=stack_env["SCYTHE_STORAGE_BUCKET"],
        prefix="contract-tests",
        endpoint_url=stack_env["AWS_ENDPOINT_URL_S3"],
        region=stack_env["AWS_DEFAULT_REGION"],
        access_key_id=stack_env["AWS_ACCESS_KEY_ID"],
        secret_access_key=stack_env["AWS_SECRET_ACCESS_KEY"],
    )


def scalars_of(result: LeafReply) -> dict[str, Any]:
    """Return the scalar outputs of a leaf."""
    assert isinstance(result, LeafResult)
    return json.loads(result.scalars)


def tables_of(result: LeafReply, store: StoreConfig) -> dict[str, pa.Table]:
    """Return the tables that a batch gave back."""
    assert isinstance(result, BatchResult)
    found: dict[str, list[pa.Table]] = {}
    for pack in result.packs:
        data = pack if isinstance(pack, bytes) else open_store(store).get_bytes(pack)
        for name, table in read_pack(data):
            found.setdefault(name, []).append(table)
    return {name: pa.concat_tables(tables) for name, tables in found.items()}


def tries_of(folder: Path) -> list[tuple[int, int]]:
    """Return the tries that leaves of a batch made, in order: number and process."""
    lines = (folder / "tries").read_text().splitlines()
    return [(int(number), int(pid)) for number, pid in (line.split() for line in lines)]


async def announced(folder: Path, number: int = 0, within: float = 30.0) -> dict[str, int]:
    """Wait until a leaf has said which processes it has."""
    file = folder / f"{number}.json"
    async with asyncio.timeout(within):
        while not file.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    return json.loads(file.read_text())


def is_alive(pid: int) -> bool:
    """Return whether a process is there and not merely waiting to be asked how it ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def own_children(others: Collection[int] = ()) -> set[int]:
    """Return the processes below this one, but not `others` and what they have started.

    Nor multiprocessing's tracker.
    """
    found: set[int] = set()
    waiting = psutil.Process().children()
    while waiting:
        child = waiting.pop()
        try:
            tracks = "multiprocessing.resource_tracker" in " ".join(child.cmdline())
            if child.pid not in others and not tracks:
                found.add(child.pid)
                waiting += child.children()
        except psutil.NoSuchProcess:
            continue
    return found
