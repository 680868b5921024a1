"""What the contract suite needs: each executor is opened once, with a loop of its own."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import uuid
from collections.abc import Collection, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from scythe.base import ExperimentInputSpec
from scythe.codec import encode_spec
from scythe.errors import ExecutorError
from scythe.executor import Executor, ExecutorRequest, load_executor_factory
from scythe.experiment import Experiment
from scythe.locate import code_ref
from scythe.outcomes import LeafCall, LeafFailure, LeafResources, LeafResult, StoreConfig

EXECUTORS = ["local", "ray"]  # the names under which they are installed
SLOTS = 2
RUN = f"contract/v1.0.0/{uuid.uuid4().hex}"

T = TypeVar("T")


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

    def do(self, work: Coroutine[Any, Any, T], within: float = 60.0) -> T:
        """Run a coroutine in the executor's loop."""

        async def limited() -> T:
            async with asyncio.timeout(within):
                return await work

        return self._runner.run(limited())

    def result(self, experiment: Experiment[Any, Any], **fields: Any) -> LeafResult:
        """Run a leaf that must end well."""
        return self.do(self.executor.run(self.call(experiment, **fields)))

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


def scalars_of(result: LeafResult) -> dict[str, Any]:
    """Return the scalar outputs of a leaf."""
    return json.loads(result.scalars)


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
