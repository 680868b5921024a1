"""Runs whose engine loses that children are over, as one that is killed at that moment does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scythe.scatter_gather import RecursionMap
from tests.acceptance.running import wait_until, worker
from tests.integration.conftest import APP
from tests.integration.database import losing

DEADLINE = 240


@pytest.fixture(autouse=True)
def lost(stack: dict[str, str], stack_home: Path) -> Iterator[Callable[[], int]]:
    """An engine that tells no node of the end of a child; counts what it has lost."""
    with losing(stack_home, "internal-event") as count:
        yield count


def numbers(table: Any) -> list[int]:
    return table.to_pandas().index.get_level_values("sort_index").tolist()


def test_all_ends_are_lost(
    start: Any, app: Any, stack: dict[str, str], lost: Callable[[], int], tmp_path: Path
) -> None:
    specs: list[dict[str, Any]] = [{"x": i} for i in range(6)]
    specs[2] = {"mode": "raise", "folder": str(tmp_path), "text": "wall 2"}
    tree = RecursionMap(factor=2, max_depth=1)
    with worker(APP, tmp_path / "log", SCYTHE_WORKER_SLOTS="2", **stack):
        started = [
            start(specs, recursion_map=tree),
            start(specs, batch_size=2),
            start([{}, {}], runnable=app.on_no_worker),
        ]
        results = [ref.result(timeout=DEADLINE) for _, ref in started]
    assert [(result.n_leaves, result.n_failed) for result in results] == [(6, 1), (6, 1), (2, 2)]
    for run, _ in started[:2]:
        assert numbers(run.results("scalars")) == [0, 1, 3, 4, 5]
        assert numbers(run.results("errors")) == [2]
        errors = run.errors().to_pandas()
        assert errors[["kind", "type"]].values.tolist() == [["application_error", "ValueError"]]
        assert errors["message"].str.endswith("of wall 2").all()
        assert errors["traceback"].str.contains("raise ValueError").all()
    assert started[2][0].errors().to_pandas()["kind"].tolist() == ["cancelled"] * 2
    assert lost() > 0


def test_a_node_is_handed_on_when_its_worker_stops(
    start: Any, stack: dict[str, str], tmp_path: Path
) -> None:
    # The engine itself gives a node to the next worker only when it tells of the end of a child.
    leaves = worker(APP, tmp_path / "leaf", SCYTHE_WORKER_DOES_FAN="false", **stack)
    with leaves:
        with worker(APP, tmp_path / "fan", SCYTHE_WORKER_DOES_LEAF="false", **stack):
            run, ref = start([{"mode": "wait", "folder": str(tmp_path)}])
            wait_until(lambda: run.status().running == 1, "the leaf runs", DEADLINE)
        (tmp_path / "go").touch()
        with worker(APP, tmp_path / "next", SCYTHE_WORKER_DOES_LEAF="false", **stack):
            assert ref.result(timeout=DEADLINE).summary == "1 leaves, 1 done, 0 failed"
    assert numbers(run.results("scalars")) == [0]
