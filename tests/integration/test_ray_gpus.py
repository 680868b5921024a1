"""Processes that run leaves with GPUs, on a cluster with two logical ones."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

from scythe.errors import ExecutorUnavailable, LeafFailed
from scythe.executor import ExecutorRequest
from scythe.locate import code_ref
from scythe.outcomes import FailureKind, LeafCall, LeafReply, LeafResources, LeafResult, StoreConfig
from scythe.specs.codec import encode_spec
from scythe_ray.executor import RayExecutor
from scythe_ray.plugin import open_executor

sys.path.insert(0, str(Path(__file__).parent))

import ray_experiments

GPU, CPU = LeafResources(gpus=1), LeafResources()
QUARTER = LeafResources(cpus=0.5, gpus=0.25)


class Leaves:
    """Runs leaves, and says in which process and with which GPUs they ran."""

    def __init__(self, executor: RayExecutor, runner: asyncio.Runner) -> None:
        self._executor, self._runner = executor, runner

    def run(self, *asked: LeafResources, how: str = "", folder: str = "") -> list[tuple[int, str]]:
        async def together() -> list[LeafReply]:
            calls = [_call(resources, how, folder) for resources in asked]
            async with asyncio.timeout(60):
                return await asyncio.gather(*(self._executor.run(call) for call in calls))

        replies = self._runner.run(together())
        assert all(isinstance(reply, LeafResult) for reply in replies)
        return [(reply.stats.pid, reply.stats.gpus) for reply in replies]  # type: ignore[union-attr]

    def run_at_once(self, *asked: LeafResources) -> list[tuple[int, str]]:
        """Run leaves of which none ends before all of them are there."""
        with tempfile.TemporaryDirectory() as folder:
            return self.run(*asked, how=f"meet {len(asked)}", folder=folder)


def _call(resources: LeafResources, how: str, folder: str) -> LeafCall:
    spec = ray_experiments.Task(
        experiment_id="ray/v1.0.0/now", sort_index=0, how=how, folder=folder
    )
    return LeafCall(
        leaf_id=uuid.uuid4().hex[:8],
        code=code_ref(ray_experiments.where),
        spec=encode_spec(spec),
        experiment_id="ray/v1.0.0/now",
        store=StoreConfig(bucket="none"),
        timeout=60.0,
        resources=resources,
    )


@pytest.fixture(scope="module")
def leaves() -> Iterator[Leaves]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("SCYTHE_RAY_", "RAY_")):
                patch.delenv(name)
        patch.setenv("SCYTHE_RAY_ADDRESS", "local")  # not one that somebody else has here
        patch.setenv("SCYTHE_RAY_NUM_CPUS", "2")
        patch.setenv("SCYTHE_RAY_NUM_GPUS", "2")
        executor: Any = open_executor(ExecutorRequest())
        with asyncio.Runner() as runner:
            try:
                yield Leaves(executor, runner)
            finally:
                runner.run(executor.aclose())


def test_leaves_with_a_gpu_use_one_process_and_others_never_do(leaves: Leaves) -> None:
    one_by_one = [leaves.run(GPU)[0] for _ in range(4)]
    assert len(set(one_by_one)) == 1
    without = {pid for _ in range(4) for pid, gpus in leaves.run(CPU, CPU) if not gpus}
    assert len(without) <= 2
    assert one_by_one[0][0] not in without


def test_a_process_only_ever_has_the_gpus_that_it_saw_first(leaves: Leaves) -> None:
    seen: dict[int, set[str]] = {}
    for asked in [(GPU, GPU), (GPU,), (GPU, GPU), (GPU,), (QUARTER, QUARTER), (GPU,), (GPU, GPU)]:
        for pid, gpus in leaves.run_at_once(*asked):
            seen.setdefault(pid, set()).add(gpus)
    assert set().union(*seen.values()) == {"0", "1"}
    assert all(len(gpus) == 1 for gpus in seen.values()), seen


def test_after_a_failure_the_next_leaf_has_another_process(leaves: Leaves) -> None:
    """Some errors of a GPU's library are there to stay."""
    ((before, _),) = leaves.run(GPU)
    with pytest.raises(LeafFailed, match="as it was told to"):
        leaves.run(GPU, how="fail")
    after = {pid for _ in range(3) for pid, _ in leaves.run(GPU, GPU)}
    assert before not in after


def test_a_process_without_a_leaf_gives_back_what_it_has_of_a_gpu(leaves: Leaves) -> None:
    pids = {pid for pid, _ in leaves.run(GPU, GPU)}
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < deadline, "it does not end"
        time.sleep(0.1)
    assert leaves.run(GPU)[0][0] not in pids


@pytest.mark.parametrize("gpus", [1.5, 0.00001], ids=["when it starts", "before that"])
def test_what_ray_itself_refuses_is_said(leaves: Leaves, gpus: float) -> None:
    with pytest.raises(ExecutorUnavailable, match="Ray refuses the demand of the leaf") as caught:
        leaves.run(LeafResources(gpus=gpus))
    assert caught.value.failure.kind is FailureKind.INFEASIBLE
