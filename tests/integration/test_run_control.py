"""Runs are limited while they go: leaves at once, and which run is first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.running import wait_until, worker
from tests.integration.conftest import APP

DEADLINE = 180  # another process of tests may run beside this one


@pytest.fixture(scope="module", autouse=True)
def running(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One worker for all tests of this module, with two slots."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with worker(APP, log, SCYTHE_WORKER_SLOTS="2", **stack_env):
        yield


def began(folder: Path) -> int:
    """Count the leaves of `hold` that have begun."""
    return len(list(folder.glob("began-*")))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_no_more_leaves_run_at_once_than_there_are_licences(
    start: Any, app: Any, tmp_path: Path, batch_size: int
) -> None:
    specs = [{"folder": str(tmp_path)} for _ in range(8)]
    run, _ = start(specs, app.licensed, batch_size=batch_size)
    assert run.wait(timeout=DEADLINE).done == 8
    assert run.results().to_pandas()["y"].tolist() == [1.0] * 8


def test_an_urgent_run_passes_a_long_queue(start: Any, app: Any, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    queue, _ = start([{"mode": "wait", "folder": str(slow)} for _ in range(400)], app.hold)
    wait_until(lambda: began(slow) == 2, "the slots are taken", DEADLINE)
    wait_until(lambda: queue.status().waiting == 398, "the others wait", DEADLINE)
    specs = [{"folder": str(tmp_path)} for _ in range(10)]
    urgent, _ = start(specs, app.hold, priority=3, version="v2.0.0")
    (slow / "go").touch()
    assert urgent.wait(timeout=DEADLINE).done == 10
    assert not queue.status().is_over
    assert began(slow) < 200
    assert queue.wait(timeout=DEADLINE).done == 400
