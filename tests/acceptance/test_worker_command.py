"""`scythe worker` and `scythe workers` as subprocesses, and who is told of runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scythe.experiments import BaseExperiment
from scythe.status import RunStatus
from tests.acceptance.running import load_app, pointed_at, wait_until
from tests.acceptance.test_commands import command
from tests.acceptance.workers import WorkerProcess, running
from tests.unit.receiver import Receiver, receiving

EXPERIMENTS = '''
"""An experiment whose leaves wait for a file."""

import time
from pathlib import Path

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

FACTOR = 2.0


class GateInput(ExperimentInputSpec):
    """A gate."""

    number: float
    file: str


class GateOutput(ExperimentOutputSpec):
    """The number behind it."""

    result: float


@ExperimentRegistry.Register(retries=0)
def gate(input_spec: GateInput) -> GateOutput:
    """Wait until the file is there."""
    while not Path(input_spec.file).exists():
        time.sleep(0.05)
    time.sleep(0.5)
    return GateOutput(result=FACTOR * input_spec.number)
'''
MAIN = """
import experiments

from scythe.worker import ScytheWorkerConfig

if __name__ == "__main__":
    ScytheWorkerConfig().start()
"""


@dataclass
class Bed:
    """Shared by all tests: a project, and who is told of its runs."""

    folder: Path
    app: Any
    receiver: Receiver

    def allocate(self, count: int, file: str, name: str) -> Any:
        """Start a run of so many leaves that wait for a file."""
        specs = [
            self.app.GateInput(number=1 + i, file=str(self.folder / file)) for i in range(count)
        ]
        base = BaseExperiment(runnable=self.app.gate, run_name=name)
        return base.allocate(specs, batch_size=1)[0]

    def posted(self, run: Any) -> list[RunStatus]:
        """Return what was posted of a run."""
        found = [RunStatus.model_validate_json(body) for *_, body in self.receiver.requests]
        return [status for status in found if status.experiment_id == run.experiment_id]

    def worker(self, *words: str, log: str) -> Any:
        """Run `scythe worker`."""
        return running(
            str(self.folder),
            *("-m", "scythe.cli", "worker", *words),
            log=self.folder / log,
            SCYTHE_WORKER_NAME="gates",
            SCYTHE_WORKER_SLOTS="2",
            SCYTHE_WORKER_SHUTDOWN_TIMEOUT="300s",
            SCYTHE_NOTIFY_URL=self.receiver.url,
        )


@pytest.fixture(scope="module")
def bed(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("gates")
    (folder / "experiments.py").write_text(EXPERIMENTS)
    (folder / "main.py").write_text(MAIN)
    with pointed_at(stack_env), receiving() as receiver:
        yield Bed(folder, load_app(str(folder), "experiments.py"), receiver)


def test_a_change_of_the_code_restarts_the_worker(bed: Bed) -> None:
    """Leaves that run finish with the old code, the others have the new one, and it shows."""
    with bed.worker("--reload", log="reload.log") as worker:
        worker.wait_ready()
        run = bed.allocate(40, "reloaded", "reloaded")
        wait_until(lambda: run.status().running == 2, "two leaves run", 90)
        file = bed.folder / "experiments.py"
        file.write_text(file.read_text().replace("FACTOR = 2.0", "FACTOR = 3.0"))
        worker.wait_for_line(r"reload: experiments\.py changed; restarting the worker", 90)
        worker.wait_for_line(r"waits for 2 running leaves", 90)
        wait_until(lambda: connected("gates").is_paused, "the engine knows that it stops", 90)
        (bed.folder / "reloaded").touch()
        status = run.wait(timeout=300)
        table = run.to_pandas()
        factors = (table["result"] / table["number"]).tolist()
        assert (status.done, factors.count(2.0) + factors.count(3.0)) == (40, 40)
        assert factors.count(2.0) >= 2  # those that ran, and what the engine had given it besides
        assert status.code_mismatches == factors.count(3.0) > 0
        assert worker.text.count(" is ready.") == 2
        assert [(one.state, one.done) for one in bed.posted(run)] == [("done", 40)]
        (code,) = connected("gates").codes.values()
        assert code != bed.app.gate.code.fingerprint
        worker.popen.send_signal(signal.SIGINT)
        assert worker.wait_end(90) == 0, worker.text
    file.write_text(EXPERIMENTS)


@pytest.fixture(scope="module")
def of_module(bed: Bed) -> Generator[WorkerProcess]:
    with bed.worker("experiments", "--executor", "local", log="module.log") as worker:
        worker.wait_ready()
        yield worker
        worker.popen.send_signal(signal.SIGINT)
        assert worker.wait_end(90) == 0, worker.text


def connected(name: str) -> Any:
    from scythe.engine.lookup import connected_workers

    return next(one for one in connected_workers() if one.name == name)


def test_a_worker_of_a_module_shows_its_code(bed: Bed, of_module: WorkerProcess) -> None:
    rows = {row["worker"]: row for row in json.loads(command("workers", "--json").stdout)}
    row = rows["gates"]
    assert row["code"] == {"gate": bed.app.gate.code.fingerprint}
    assert (row["slots"], row["labels"], row["serves"]) == (2, {}, ["gate"])
    assert rows["gates--fan"]["code"] == {}
    assert f"gate={bed.app.gate.code.fingerprint}" in command("workers").stdout


def test_a_drained_worker_takes_no_leaves(bed: Bed, of_module: WorkerProcess) -> None:
    first = bed.allocate(2, "first", "drained-first")
    wait_until(lambda: first.status().running == 2, "two leaves run", 90)
    done = command("workers", "--drain", "gates")
    assert (done.returncode, done.stdout) == (0, "Drained gates, where 2 slots are taken.\n")
    assert "scythe workers --resume gates" in done.stderr
    assert [connected(name).is_paused for name in ("gates", "gates--fan")] == [True, False]
    second = bed.allocate(1, "first", "drained-second")
    (bed.folder / "first").touch()
    assert first.wait(timeout=120).done == 2  # those that ran have finished
    wait_until(lambda: "it was drained" in second.status().waits_for, "the reason", 90)
    assert second.status().done == 0
    done = command("workers", "--resume", "gates", "--json")
    assert json.loads(done.stdout) == {"resumed": ["gates"], "running": 0}
    assert second.wait(timeout=120).done == 1
    assert not connected("gates").is_paused


def test_workers_that_are_not_there(of_module: WorkerProcess) -> None:
    done = command("workers", "--drain", "gate")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No worker 'gate' is connected. There are gates, gates--fan." in done.stderr
    assert command("workers", "--drain", "a", "--resume", "b").returncode == 2


def test_a_cancelled_run_is_posted_once(bed: Bed, of_module: WorkerProcess) -> None:
    run = bed.allocate(3, "never", "posted")
    wait_until(lambda: run.status().running == 2, "two leaves run", 90)
    done = command("cancel", run.experiment_id, SCYTHE_NOTIFY_URL=bed.receiver.url)
    assert done.returncode == 0, done.stderr
    assert [(one.state, one.failed, one.total) for one in bed.posted(run)] == [("cancelled", 3, 3)]
    assert command("cancel", run.experiment_id).returncode == 0
    assert len(bed.posted(run)) == 1


def test_the_page_of_a_run(bed: Bed, of_module: WorkerProcess) -> None:
    (bed.folder / "page").touch()
    run = bed.allocate(1, "page", "shown")
    run.wait(timeout=120)
    assert run.url is None  # the engine of the local stack has none
    assert json.loads(command("status", run.experiment_id, "--json").stdout)["url"] is None
    with receiving() as pages:
        pages.kind = "text/html"
        done = command("status", run.experiment_id, HATCHET_CLIENT_SERVER_URL=pages.url)
        page = next(line for line in done.stdout.splitlines() if line.startswith("page"))
        assert page.split()[1].startswith(f"{pages.url}/tenants/")
        assert page.endswith(f"/runs/{run.status().workflow_run_id}")
