"""Repair and repeat runs: retry what failed or is missing, reuse what is unchanged."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scythe.catalog import open_run
from scythe.experiments import BaseExperiment
from tests.acceptance.running import APPS, load_app, pointed_at, wait_until, worker

IDS = ["experiment_id", "workflow_run_id", "root_workflow_run_id", "weather"]
TIMES = ["queued", "started", "finished", "queue_seconds", "seconds", "peak_rss", "pid", "node"]
SECONDS = 120


@pytest.fixture(scope="module")
def app(
    request: pytest.FixtureRequest,
    stack_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Any]:
    log = tmp_path_factory.mktemp("retry") / "log"
    executor = getattr(request, "param", "local")
    variables = {"SCYTHE_WORKER_EXECUTOR": executor, "SCYTHE_WORKER_SLOTS": "4"}
    with pointed_at(stack_env), worker("retry", log, **variables):
        yield load_app("retry")


def allocate(app: Any, specs: list[Any], **options: Any) -> Any:
    base: Any = BaseExperiment(runnable=app.patchy)
    run, _ = base.allocate(specs, version="bumppatch", **options)
    return run


def table(run: Any, name: str) -> pd.DataFrame:
    """A table without what differs from run to run: ids, times and URIs."""
    frame = run.results(name).to_pandas()
    frame = frame.droplevel([one for one in IDS if one in frame.index.names])
    if name == "result_file_refs":
        return frame[[]]
    return frame.drop(columns=[one for one in TIMES if one in frame])


def same_tables(run: Any, other: Any) -> None:
    for name in ("scalars", "hours", "result_file_refs", "errors", "leaves"):
        pd.testing.assert_frame_equal(table(run, name), table(other, name))


def stored(run: Any) -> dict[str, bytes]:
    """All objects of a run."""
    store = run.store()
    return {key: store.get_bytes(key) for key in store.list_keys(run.layout.prefix)}


def numbers(run: Any, name: str = "leaves") -> list[int]:
    return run.results(name).column("sort_index").to_pylist()


def test_failed_leaves_of_500_run_again(app: Any, tmp_path: Path) -> None:
    from scythe.errors import SpecError
    from scythe.runs.compare import compare
    from scythe.storage.files import split_s3_uri

    gate = tmp_path / "gate"
    specs = [
        app.PatchyInput(number=number, gate=str(gate) if number % 5 == 2 else "")
        for number in range(500)
    ]
    first = allocate(app, specs, batch_size=25)
    status = first.wait(timeout=SECONDS)
    assert (status.state, status.done, status.failed) == ("done", 400, 100)
    before = stored(first)
    gate.touch()

    second = first.retry()
    status = second.wait(timeout=SECONDS)
    assert (status.state, status.total, status.done, status.failed) == ("done", 500, 500, 0)
    assert status.reused == 400
    assert second.versioned_experiment.version == first.versioned_experiment.version
    assert second.experiment_id != first.experiment_id
    assert second.manifest().sources == [first.experiment_id]
    assert sum(second.manifest().codes.values()) == 500
    assert stored(first) == before
    assert numbers(second) == list(range(500))
    assert set(second.results("scalars").column("experiment_id").to_pylist()) == {
        second.experiment_id
    }
    started = second.results("leaves").column("started").to_pylist()
    assert sum(one.timestamp() >= status.started for one in started) == 100
    uris = second.results("result_file_refs").column("plot").to_pylist()
    texts = [second.store().get_bytes(split_s3_uri(uri)[1]).decode() for uri in uris]
    assert texts == [f"plot of {number}" for number in range(500) if number % 10 in (1, 2)]
    own = [uri for uri in uris if second.experiment_id in uri]
    assert len(own) == 50  # those of the others stay where they are
    assert not list(second.store().list_keys(second.layout.intermediate))

    undisturbed = allocate(app, specs, batch_size=25)
    undisturbed.wait(timeout=SECONDS)
    same_tables(second, undisturbed)

    third = asyncio.run(second.aio_retry(leaves=[3, 7]))  # a retry of a retry
    third.wait(timeout=SECONDS)
    same_tables(third, undisturbed)
    assert third.manifest().sources == [second.experiment_id, first.experiment_id]
    with pytest.raises(SpecError, match=r"Nothing to retry in .*: no leaf failed\."):
        third.retry()
    with pytest.raises(SpecError, match="no leaf 500"):
        third.retry(leaves=[3, 500])

    output = first.call_here(7)
    assert (output.doubled, len(output.dataframes["hours"])) == (14, 2)
    with pytest.raises(SpecError, match="no leaf 500"):
        first.call_here(500)
    found = compare(first, third)
    assert (found.n_compared, found.n_changed, found.only_here) == (500, 100, [])
    assert set(found.changed["output"]) == {"state", "doubled", "words"}


def test_missing_leaves_of_a_cancelled_run_of_batches(app: Any, tmp_path: Path) -> None:
    from scythe.errors import RunGoesOnError, SpecError
    from scythe.scatter_gather import RecursionMap

    gate = tmp_path / "gate"
    specs = [
        app.PatchyInput(number=number, gate=str(gate) * (number % 10 == 7), holds=number % 10 == 7)
        for number in range(60)
    ]
    tree = RecursionMap(factor=3, max_depth=1)
    run = allocate(app, specs, batch_size=5, recursion_map=tree)
    wait_until(lambda: run.status().done >= 10, "ten leaves are done")
    with pytest.raises(RunGoesOnError, match="is running, so that"):
        run.retry(missing=True)
    with pytest.raises(RunGoesOnError, match="is running, so that"):
        allocate(app, specs, reuse=run)
    cancelled = run.cancel()
    assert 0 < cancelled.done < 60
    with pytest.raises(SpecError, match="run them with missing=True"):
        run.retry()
    gate.touch()
    again = run.retry(missing=True)
    status = again.wait(timeout=SECONDS)
    assert (status.state, status.done, status.failed) == ("done", 60, 0)
    whole = allocate(app, specs)
    whole.wait(timeout=SECONDS)
    same_tables(again, whole)


def test_a_retry_that_is_cancelled_has_all_leaves_and_is_retried(app: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    specs = [
        app.PatchyInput(number=number, gate=str(gate) * (number % 4 == 3), holds=number % 4 == 3)
        for number in range(40)
    ]
    run = allocate(app, specs)
    wait_until(lambda: run.status().done >= 5, "five leaves are done")
    first = run.cancel()
    again = run.retry(missing=True)
    wait_until(lambda: again.status().state == "running", "the retry runs")
    status = again.status()
    assert (status.total, status.done) >= (40, first.done)
    partial = again.results("leaves", partial=True)
    assert partial.num_rows >= first.done  # those that are taken over are known at once
    cancelled = again.cancel()
    assert cancelled.total == cancelled.done + cancelled.failed == 40
    assert cancelled.reused == first.done
    assert numbers(again) == list(range(40))
    gate.touch()
    last = again.retry(missing=True)
    assert last.wait(timeout=SECONDS).done == 40
    assert numbers(last) == numbers(last, "scalars") == list(range(40))


def scythe(*words: str, code: int = 0) -> str:
    """Run a command as a user would; return what it prints."""
    command = [str(Path(sys.executable).with_name("scythe")), *words]
    done = subprocess.run(
        command, cwd=APPS / "retry", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


def test_the_commands(app: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = allocate(app, [app.PatchyInput(number=n, gate=str(gate) * (n == 2)) for n in range(4)])
    run.wait(timeout=SECONDS)
    name = run.experiment_id
    assert "run them again with --failed" in scythe("retry", name, "--missing", code=2)
    gate.touch()
    again = json.loads(scythe("retry", name, "--failed", "--json"))["run"]
    found = open_run(again)
    assert found.spec_text(0) != found.spec_text(2)  # one is kept, one runs again
    assert found.wait(timeout=SECONDS).done == 4
    assert f"{again} uses its leaves" in scythe("rm", name, "--yes", code=2)
    compared = json.loads(scythe("compare", name, again, "--json"))
    assert (compared["compared"], compared["only_here"]) == (4, [])
    assert {row["output"] for row in compared["changed"]} == {"state", "doubled", "words"}
    output = json.loads(scythe("run", "patchy", "--run", name, "--leaf", "3"))
    assert output["doubled"] == 6
    spec = tmp_path / "spec.json"
    spec.write_text('{"number": 21}')
    assert json.loads(scythe("run", "patchy", "--spec", str(spec)))["doubled"] == 42
    assert "Give either" in scythe("run", "patchy", code=2)


def test_retry_without_the_code_of_the_experiment(app: Any, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from scythe.runs.allocate import Allocation
    from scythe.runs.allocation_options import AllocationOptions
    from scythe.runs.retry import RetryChoice

    gate = tmp_path / "gate"
    run = allocate(app, [app.PatchyInput(number=n, gate=str(gate)) for n in range(2)])
    run.wait(timeout=SECONDS)
    gate.touch()
    stranger = SimpleNamespace(name="a folder")
    allocation = Allocation(stranger, run.store(), AllocationOptions())
    choice = RetryChoice(failed=True, missing=False, leaves=frozenset())
    again, _ = allocation.start_again(run.layout, choice, run.another())
    assert again.wait(timeout=SECONDS).done == 2
    assert again.manifest().experiment_name == "patchy"


def test_unchanged_leaves_are_reused(app: Any, tmp_path: Path) -> None:
    rain, sun = tmp_path / "rain.txt", tmp_path / "sun.txt"
    rain.write_text("rain")
    sun.write_text("sun")
    weather = [rain, sun, None]
    specs = [app.PatchyInput(number=n, weather=weather[n % 3]) for n in range(30)]
    base: Any = BaseExperiment(runnable=app.patchy, run_name=f"reuse-{uuid.uuid4().hex}")

    def start(specs: Any, **options: Any) -> Any:
        run, _ = base.allocate(specs, version="bumppatch", **options)
        run.wait(timeout=SECONDS)
        return run

    plan = base.allocate(specs, dry_run=True)
    assert (plan.n_leaves, plan.n_to_run, plan.input_bytes, plan.cpu_hours) == (30, 30, 7, None)
    assert base.list_versions() == []
    first = start(specs, reuse="latest", description="the first", tags=["rain"])
    assert (first.manifest().description, first.manifest().tags) == ("the first", ["rain"])
    sun.write_text("fog")
    more = [app.PatchyInput(number=n, weather=weather[n % 3]) for n in range(35)][::-1]
    plan = base.allocate(more, dry_run=True, reuse=first)
    assert (plan.n_leaves, plan.n_to_run) == (35, 15)
    assert plan.cpu_hours is not None
    second = start(more, reuse="latest")
    status = second.status()
    assert (status.total, status.done, status.failed) == (35, 35, 0)
    assert second.manifest().sources == [first.experiment_id]
    leaves = second.results("leaves")
    uris = second.results("scalars").column("weather").to_pylist()
    assert all(second.experiment_id in uri for uri in uris if uri)
    is_run = [one.timestamp() >= status.started for one in leaves.column("started").to_pylist()]
    expected = [n >= 30 or n % 3 == 1 for n in range(35)][::-1]
    assert is_run == expected
    whole = start(more)
    same_tables(second, whole)
    none = start(more, reuse=second.experiment_id)  # nothing is left to run
    assert none.status().done == 35
    same_tables(none, whole)
    dice: Any = base.model_copy(update={"runnable": app.dice})
    plan = dice.allocate(more, dry_run=True, reuse=whole)
    assert plan.n_to_run == 35


@pytest.mark.parametrize("app", ["ray"], indirect=True)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_retry_on_ray(app: Any, tmp_path: Path, batch_size: int) -> None:
    gate = tmp_path / "gate"
    gates = [str(gate) if number % 3 == 1 else "" for number in range(12)]
    specs = [app.PatchyInput(number=number, gate=one) for number, one in enumerate(gates)]
    first = allocate(app, specs, batch_size=batch_size)
    assert first.wait(timeout=SECONDS).failed == 4
    gate.touch()
    second = first.retry()
    assert second.wait(timeout=SECONDS).done == 12
    assert numbers(second) == numbers(second, "scalars") == list(range(12))
    doubled = second.results("scalars").column("doubled").to_pylist()
    assert doubled == [2 * number for number in range(12)]
