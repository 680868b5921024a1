"""A node that is not told of the end of its children notices it by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scythe import progress as module
from scythe.files import S3Url
from scythe.layout import RunLayout
from scythe.node_models import ScatterGatherInput
from scythe.progress import NodeProgress
from scythe.settings import ScytheStorageSettings
from scythe.tree import RecursionMap


class Bucket:
    def put_bytes(self, key: str, data: bytes) -> str:
        return key

    def find_bytes(self, key: str) -> None:
        return None


class Run:
    """A run of a node with three children."""

    workflow_run_id = "run"

    def __init__(self, looks: int, **counts: int) -> None:
        self.counts = {"queued": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0}
        self.counts |= counts
        self.gave_back, self.looks = False, looks

    def begin(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    async def count_children(self) -> dict[str, int]:
        self.looks -= 1
        if self.looks <= 0 and not self.ended.done():
            self.ended.set_result(None)
        return self.counts

    def give_back(self) -> None:
        self.gave_back, self.looks = True, 0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PAUSE", "_LOOK_FOR_LOST"):
        monkeypatch.setattr(module, name, 0.005)
    monkeypatch.setattr(module, "_LOST", 0.02)


def payload() -> ScatterGatherInput:
    return ScatterGatherInput(
        experiment_id="e/v1.0.0/d",
        task_name="t",
        specs_uri=S3Url("s3://b/specs.pq"),
        storage_settings=ScytheStorageSettings(BUCKET="b"),
        recursion_map=RecursionMap(factor=10, max_depth=0),
        n_specs=3,
    )


def follow(run: Any, waits_for: int) -> bool:
    async def work() -> bool:
        run.begin()
        bucket: Any = Bucket()
        given = payload()
        layout = RunLayout("p", given.experiment_id)
        async with NodeProgress(layout, bucket, run, given, given.tasks(3)) as progress:
            progress.waits_for = waits_for
            async with asyncio.timeout(20):
                await run.ended
        return run.gave_back

    return asyncio.run(work())


def test_a_node_whose_children_are_all_over_is_given_back() -> None:
    assert follow(Run(100_000, completed=2, failed=1), 3)


@pytest.mark.parametrize(
    ("counts", "waits_for"),
    [({"completed": 2, "running": 1}, 3), ({"completed": 3}, 0), ({"completed": 3}, 5)],
    ids=["one runs", "it waits for none", "not all have begun"],
)
def test_a_node_with_something_to_wait_for_is_left_alone(
    counts: dict[str, int], waits_for: int
) -> None:
    assert not follow(Run(40, **counts), waits_for)
