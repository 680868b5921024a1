"""Two workers serve one experiment, and one of them has other code than the run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.chaos.bed import Bed
from tests.chaos.nodes import HERE
from tests.chaos.report import Report
from tests.chaos.runs import TracedRun, wait_clean

LEAVES = 24


@pytest.fixture(scope="module")
def bed(services: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Generator[Bed]:
    """A node with two workers, of which the second has edited its experiments."""
    other = tmp_path_factory.mktemp("other") / "app"
    shutil.copytree(HERE / "app", other, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "main.py").open("a") as script:
        script.write("\nEDITED = True\n")
    with Bed(services) as made:
        node = made.add("a")
        node.start_ray("--num-cpus=4")
        workers = [
            node.start_worker("own.log", SCYTHE_WORKER_SLOTS="2"),
            node.start_worker(
                "other.log", other, SCYTHE_WORKER_SLOTS="2", SCYTHE_WORKER_DOES_FAN="false"
            ),
        ]
        for worker in workers:
            worker.wait_ready()
        yield made
        for worker in workers:
            worker.stop()


@pytest.mark.parametrize("what", ["warn", "fail"])
def test_every_leaf_ends_exactly_once_and_the_run_says_which_code_it_ran(
    what: str, bed: Bed, tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.chaos.app.main import plain

    monkeypatch.setenv("SCYTHE_CODE_MISMATCH", what)
    run = TracedRun(plain, tmp_path, LEAVES)
    outcome = run.outcome(time.time(), 240)
    report.add(f"two codes, SCYTHE_CODE_MISMATCH={what}", outcome)
    assert (outcome.lost, outcome.twice, outcome.failed, outcome.reruns) == (0, 0, 0, 0)
    codes = run.run.results("leaves").column("code").to_pylist()
    others = sum(code != plain.code.fingerprint for code in codes)
    assert (others > 0) == (what == "warn")
    assert run.run.status().code_mismatches == others
    assert run.run.manifest().code_mismatches == others
    wait_clean(bed)
