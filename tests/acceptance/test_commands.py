"""The commands on runs, as subprocesses on the local stack: one project, one worker, three runs."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import scythe
from scythe.cli import main
from scythe.errors import ExperimentTypeNotFound, ResultNotFoundError, RunFailedError
from scythe.experiments import BaseExperiment, ExperimentRun
from scythe.registry import ExperimentRegistry
from tests.acceptance.running import load_app, pointed_at, wait_until
from tests.acceptance.workers import running

ROOF = '''

import time
from pathlib import Path

import pandas as pd


class RoofInput(ExperimentInputSpec):
    """A roof."""

    area: float
    mode: str = "good"


class RoofOutput(ExperimentOutputSpec):
    """Its loads."""

    load: float
    report: Path


@ExperimentRegistry.Register(retries=0)
def roof(input_spec: RoofInput, tempdir: Path) -> RoofOutput:
    """Load a roof."""
    print(f"a roof of {input_spec.area} m2")
    if input_spec.mode == "break":
        raise ValueError("too much snow")
    time.sleep(600 if input_spec.mode == "slow" else 0)
    report = tempdir / "report.txt"
    report.write_text("fine")
    hours = pd.DataFrame({"snow": [1.0, 2.0 * input_spec.area]})
    return RoofOutput(load=2 * input_spec.area, report=report, dataframes={"hours": hours})
'''
BROKEN = (1, 4, 7)


def command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `scythe` in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "scythe.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **variables},
    )


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `scythe` in this process: a second question to a command that was run as one before."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        code = main(words)
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return run


def lines(text: str) -> list[list[str]]:
    """Return the fields of plain lines."""
    return [line.split("\t") for line in text.splitlines()]


@dataclass
class Bed:
    """Shared by all tests.

    Attributes:
        folder: The project that `scythe init` has made.
        roof: The second experiment in it.
        name: The folder of its runs in the bucket.
        over: A run of 10 leaves of which 3 have failed.
        going: A run of which 2 leaves are done, and 4 run or wait.
        allocated: What allocate.py of the project printed.
    """

    folder: Path
    roof: Any
    name: str
    over: ExperimentRun[Any, Any]
    going: ExperimentRun[Any, Any]
    allocated: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def bed(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("project") / "throws"
    with pointed_at(stack_env):
        assert command("init", str(folder)).returncode == 0
        file = folder / "experiments.py"
        file.write_text(file.read_text() + ROOF)
        app = load_app(str(folder), "experiments.py")
        name = f"roofs-{uuid.uuid4().hex[:8]}"
        base: Any = BaseExperiment(runnable=app.roof, run_name=name)
        modes = ["break" if number in BROKEN else "good" for number in range(10)]
        over = [app.RoofInput(area=1.0 + i, mode=mode) for i, mode in enumerate(modes)]
        going = [app.RoofInput(area=1.0, mode="slow" if i > 1 else "good") for i in range(6)]
        log = folder / "worker.log"
        with running(str(folder), "main.py", log=log, SCYTHE_WORKER_SLOTS="2"):
            first, _ = base.allocate(
                over, batch_size=1, tags=["snow", "paper"], description="Winter"
            )
            allocated = subprocess.run(
                [sys.executable, "allocate.py"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
            first.wait(timeout=120)
            second, _ = base.allocate(going, batch_size=1)
            wait_until(lambda: second.status().running == 2, "two slow leaves run")
            yield Bed(folder, app.roof, name, first, second, allocated)
            if not second.last_status().is_over:
                second.cancel()


def test_the_new_project_gives_a_table(bed: Bed) -> None:
    done = bed.allocated
    assert done.returncode == 0, done.stderr
    assert "distance" in done.stdout
    started = next(line for line in done.stderr.splitlines() if "Started" in line)
    run_id = started.split("scythe watch ")[1].split(". ")[0]
    assert started.endswith(f"Cancel it: scythe cancel {run_id}")
    shown = command("status", "throw")
    assert (shown.returncode, shown.stdout.split()[0]) == (0, run_id)


def test_runs_are_listed(bed: Bed, here: Any) -> None:
    shown = lines(command("runs", bed.name).stdout)
    assert shown[0] == ["RUN", "STATE", "DONE", "FAILED", "RUNNING", "TOTAL", "AGE"]
    assert shown[1][:6] == [bed.going.experiment_id, "running", "2", "0", "2", "6"]
    assert shown[2][:6] == [bed.over.experiment_id, "done", "7", "3", "0", "10"]
    found = json.loads(here("runs", "--json", "--state", "done").stdout)
    assert bed.over.experiment_id in {row["run"] for row in found}
    assert {row["state"] for row in found} == {"done"}
    tagged = json.loads(here("runs", "--json", "--tag", "paper", "--tag", "snow").stdout)
    assert bed.over.experiment_id in {row["run"] for row in tagged}
    assert bed.going.experiment_id not in {row["run"] for row in tagged}
    assert [run.experiment_id for run in scythe.list_runs(bed.name, tags=["snow"])] == [
        bed.over.experiment_id
    ]
    none = here("runs", bed.name, "--tag", "snow", "--tag", "rain")
    assert (none.stdout, none.stderr) == ("", "There are no runs with tag snow and rain here.\n")


def test_the_status_of_a_run_with_failed_leaves(bed: Bed, here: Any) -> None:
    done = command("status", f"{bed.name}@v1.0.0")
    assert done.returncode == 1
    assert done.stdout.startswith(f"{bed.over.experiment_id}  done\n")
    assert "about     Winter\ntags      snow, paper\n" in done.stdout
    assert "10/10 leaves (100 %): 7 done, 3 failed" in done.stdout
    assert "3 x ValueError: too much snow (application_error, leaf 1)" in done.stdout
    assert f"Run the failed leaves again: scythe retry {bed.over.experiment_id}\n" in done.stdout
    assert "errors, hours, leaves, result_file_refs, scalars" in done.stdout
    facts = json.loads(here("status", bed.over.experiment_id, "--json").stdout)
    assert (facts["state"], facts["failed"], facts["waiting"]) == ("done", 3, 0)
    assert facts["failures"][0]["count"] == 3
    assert len(facts["slowest"]) == 3


def test_the_status_of_a_run_that_goes_on(bed: Bed) -> None:
    done = command("status", bed.going.experiment_id, "--json")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert (facts["state"], facts["done"], facts["running"], facts["waiting"]) == (
        "running",
        2,
        2,
        2,
    )
    assert [(one["slots"], one["free_slots"]) for one in facts["workers"]] == [(2, 0)]


def test_errors_grouped_listed_and_whole(bed: Bed, here: Any) -> None:
    run = bed.over.experiment_id
    grouped = command("errors", run, "--group")
    assert grouped.returncode == 1
    assert lines(grouped.stdout)[1:] == [
        ["3", "application_error", "ValueError", "too much snow", "1"]
    ]
    listed = lines(here("errors", run).stdout)
    assert [row[0] for row in listed[1:]] == ["1", "4", "7"]
    assert listed[0] == ["LEAF", "KIND", "TYPE", "MESSAGE", "AREA", "MODE"]
    assert listed[1][4:] == ["2", "break"]
    whole = command("errors", "--run", run, "--leaf", "4").stdout
    for text in (
        "kind      application_error",
        "area = 5.0",
        "raise ValueError",
        "a roof of 5.0 m2",
    ):
        assert text in whole
    facts = json.loads(here("errors", run, "--leaf", "4", "--json").stdout)
    assert (facts["leaf"], facts["spec"]["mode"], facts["attempts"]) == (4, "break", 1)
    good = here("errors", run, "--leaf", "0")
    assert (good.returncode, "has not failed" in good.stderr) == (2, True)
    none = here("errors", run, "--leaf", "99")
    assert (none.returncode, "has no leaf 99" in none.stderr) == (2, True)


def test_logs(bed: Bed, here: Any) -> None:
    run = bed.over.experiment_id
    assert command("logs", run, "--leaf", "2").stdout == "a roof of 3.0 m2\n"
    everything = lines(here("logs", run).stdout)
    assert sorted(everything) == sorted([str(i), f"a roof of {1.0 + i} m2"] for i in range(10))
    entry = json.loads(here("logs", run, "--leaf", "2", "--json").stdout)
    assert (entry["leaves"], entry["text"]) == ([2, 2], "a roof of 3.0 m2")


def test_results_in_a_pipe_in_files_and_as_json(bed: Bed, here: Any, tmp_path: Path) -> None:
    run = bed.over.experiment_id
    piped = list(csv.DictReader(io.StringIO(command("results", run).stdout)))
    assert [*piped[0]] == ["sort_index", "area", "mode", "load"]
    assert [float(row["load"]) for row in piped] == [
        2.0 * (1 + i) for i in range(10) if i not in BROKEN
    ]
    file = tmp_path / "hours.parquet"
    exported = here("results", run, "hours", "--to", str(file))
    assert exported.returncode == 0
    assert f"7 of 10 leaves; 3 failed: see scythe errors {run}\n" in exported.stderr
    hours = pd.read_parquet(file)
    assert (len(hours), isinstance(hours.index, pd.RangeIndex)) == (14, True)
    some = tmp_path / "some.csv"
    words = ("--to", str(some), "--columns", "load,workflow_run_id")
    assert json.loads(here("results", run, *words, "--json").stdout)["rows"] == 7
    assert pd.read_csv(some).columns.tolist() == ["load", "workflow_run_id"]
    rows = json.loads(here("results", run, "errors", "--json").stdout)
    assert [row["message"] for row in rows] == ["too much snow"] * 3
    for words, text in {
        ("walls",): "no table 'walls' (it has: errors, hours,",
        ("--to", "x.txt"): "does not say in which format",
        ("--columns", "depth"): "no column 'depth'",
    }.items():
        wrong = here("results", run, *words)
        assert (wrong.returncode, wrong.stdout, text in wrong.stderr) == (2, "", True)


def test_partial_results(bed: Bed, here: Any) -> None:
    run = bed.going.experiment_id
    early = here("results", run)
    assert (early.returncode, early.stdout) == (2, "")
    assert f"scythe watch {run}. --partial takes the leaves that are over" in early.stderr
    piped = list(csv.DictReader(io.StringIO(command("results", run, "--partial").stdout)))
    assert [row["sort_index"] for row in piped] == ["0", "1"]


def test_watching(bed: Bed, here: Any) -> None:
    over = command("watch", bed.over.experiment_id)
    assert over.returncode == 1
    assert "failed: 3 x ValueError: too much snow" in over.stdout
    assert "7 done, 3 failed" in over.stdout.splitlines()[-2]
    last = here("watch", bed.over.experiment_id, "--json").stdout.splitlines()[-1]
    assert json.loads(last)["state"] == "done"
    program = [sys.executable, "-u", "-m", "scythe.cli", "watch", bed.going.experiment_id]
    with subprocess.Popen(
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout and watching.stderr
        assert watching.stdout.readline().strip() == bed.going.experiment_id
        assert watching.stdout.readline().startswith(
            "2/6 leaves (33 %): 2 done, 0 failed, 2 running"
        )
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
        assert f"scythe cancel {bed.going.experiment_id}" in watching.stderr.read()
    assert bed.going.status().state == "running"


def test_workers_and_doctor(bed: Bed) -> None:
    found = json.loads(command("workers", "--json").stdout)
    assert any("roof" in one["serves"] and one["slots"] == 2 for one in found)
    assert any("scatter nodes" in one["serves"] for one in found)
    done = command("doctor")
    assert done.returncode == 0, done.stdout
    assert "wrote, read and deleted" in done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines()} <= {"ok", "warn"}


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["workers"], {"HATCHET_CLIENT_SERVER_URL": "http://127.0.0.1:9"}),
        (["runs"], {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}),
    ],
)
def test_services_that_cannot_be_reached(
    words: list[str], variables: dict[str, str], bed: Bed
) -> None:
    done = command(*words, **variables)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert "127.0.0.1:9" in done.stderr


def test_the_methods_of_a_run(bed: Bed, tmp_path: Path) -> None:
    run: Any = scythe.open_run(bed.over.experiment_id)
    assert run.runnable is bed.roof
    assert (run.spec(4).area, type(run.spec(4))) == (5.0, bed.roof.input_validator_type)
    output = run.output(2)
    assert (output.load, type(output)) == (6.0, bed.roof.output_validator_type)
    assert str(output.report).endswith(".txt")
    assert output.dataframes["hours"]["snow"].tolist() == [1.0, 6.0]
    with pytest.raises(ResultNotFoundError, match="Leaf 4 of .* failed: ValueError: too much snow"):
        run.output(4)
    with pytest.raises(ResultNotFoundError, match="has no leaf 10 among its 10"):
        run.spec(10)
    assert run.to_pandas()["load"].sum() == run.to_pandas(tidy=False)["load"].sum()
    assert run.to_pandas(tidy=False).index.names[0] == "experiment_id"
    assert run.to_polars("hours").height == 14
    assert run.dataset().count_rows() == 7
    assert run.export(tmp_path / "all.parquet") == 7
    assert "3 x ValueError: too much snow" in run.explain()
    seen: list[Any] = []
    with pytest.raises(
        RunFailedError, match=r"(?s)3 failed.*too much snow .*leaf 1\)\. See run.errors"
    ):
        run.wait(raise_on_failure=True, on_progress=seen.append)
    assert [status.failed for status in seen] == [3]


def test_a_run_without_its_code(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExperimentRegistry, "_experiments", {})
    run: Any = scythe.open_run(bed.going.experiment_id)
    assert [one.slots for one in run.workers()] == [2]
    with pytest.raises(ExperimentTypeNotFound, match="scythe_experiment_roof"):
        run.spec(0)


def test_pausing_and_going_on(bed: Bed, here: Any) -> None:
    run = bed.going.experiment_id
    paused = command("pause", run)
    assert (paused.returncode, paused.stderr) == (0, "")
    assert paused.stdout == f"Paused {run}. Go on: scythe resume {run}\n"
    shown = here("status", run)
    assert (shown.returncode, shown.stdout.splitlines()[0]) == (0, f"{run}  paused")
    assert f"The run is paused. Go on with it: scythe resume {run}" in shown.stdout
    assert "2 running" in shown.stdout
    states = {one["run"]: one["state"] for one in json.loads(here("runs", "--json").stdout)}
    assert states[run] == "paused"
    assert json.loads(here("pause", run, "--json").stdout)["state"] == "paused"
    assert here("resume", run).stdout == f"Resumed {run}. Watch it: scythe watch {run}\n"
    assert here("resume", run).stdout.startswith("It was not paused. ")
    assert json.loads(here("status", run, "--json").stdout)["state"] == "running"
    over = bed.over.experiment_id
    assert here("pause", over).stdout.startswith(f"It is over. {over}: done, 7 done, 3 failed")
    assert here("pause", f"{over[:-1]}x").returncode == 2


def test_cancelling_and_deleting(bed: Bed, here: Any) -> None:
    run = bed.going.experiment_id
    refused = here("rm", run, "--yes")
    assert (refused.returncode, f"scythe cancel {run}" in refused.stderr) == (2, True)
    done = command("cancel", run)
    assert done.returncode == 0, done.stderr
    assert "cancelled, 2 done, 4 failed, 0 running of 6 leaves" in done.stdout
    again = json.loads(here("cancel", run, "--json").stdout)
    assert (again["state"], again["failed"]) == ("cancelled", 4)
    assert here("status", run).returncode == 1
    asked = command("rm", run)
    assert (asked.returncode, "add --yes" in asked.stderr) == (2, True)
    assert command("rm", run, "--yes").stdout == f"Deleted {run}.\n"
    gone = here("status", run)
    assert gone.returncode == 2
    assert f"Did you mean '{bed.over.experiment_id}'" in gone.stderr
    assert list(bed.going.store().list_keys(bed.going.layout.prefix)) == []
