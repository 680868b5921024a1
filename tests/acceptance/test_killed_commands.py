"""`kill -9` of a command at a moment that could hurt: the next commands understand what it left."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import scythe
from scythe.cli import main
from scythe.experiments import BaseExperiment
from scythe.settings import store_config
from scythe.storage.store import open_store
from tests.acceptance.running import APPS, load_app, pointed_at, wait_until, worker
from tests.s3_proxy import Moment, s3_proxy

SECONDS = 180
ALLOCATE = """
import sys
from main import PatchyInput, patchy
from scythe.experiments import BaseExperiment

name, gate = sys.argv[1:]
specs = [PatchyInput(number=n, gate=gate * (n > 1), holds=n > 1) for n in range(4)]
BaseExperiment(runnable=patchy, run_name=name).allocate(specs, batch_size=1)
"""
MANIFEST = "PUT .*/manifest.yml"
CLAIM = r"DELETE .*/\.claims/.*"
STARTS = [
    Moment("after", "PUT .*/specs.pq"),
    Moment("after", MANIFEST),
    Moment("before", MANIFEST, 2),
    Moment("before", CLAIM),
]
CANCELS = [
    Moment("after", "PUT .*/stop.json"),
    Moment("after", "PUT .*/final/errors.pq"),
    Moment("after", "PUT .*/status.json"),
]
DELETIONS = [
    Moment("after", "DELETE .*/manifest.yml"),
    Moment("after", "DELETE .*/status.json"),
]
_one_at_a_time = threading.Lock()  # of those that write to this process's standard output


@pytest.fixture(scope="module", autouse=True)
def stack_here(stack_env: dict[str, str]) -> Generator[None]:
    with pointed_at(stack_env):
        yield


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """A worker that serves the experiment, for all tests but the first."""
    log = tmp_path_factory.mktemp("killed") / "log"
    with worker("retry", log, SCYTHE_WORKER_SLOTS="12"):
        yield


class Case:
    """A run whose last two leaves wait for a gate.

    Args:
        folder: For the gate.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"killed-{uuid.uuid4().hex[:12]}"
        self.gate = folder / self.name
        self.app = load_app("retry")

    @property
    def runs(self) -> list[Any]:
        return scythe.list_runs(self.name)

    def allocate(self) -> Any:
        numbers = range(4)
        gates = [str(self.gate) * (number > 1) for number in numbers]
        specs = [
            self.app.PatchyInput(number=number, gate=gate, holds=bool(gate))
            for number, gate in zip(numbers, gates, strict=True)
        ]
        base: Any = BaseExperiment(runnable=self.app.patchy, run_name=self.name)
        return base.allocate(specs, batch_size=1)[0]

    def allocation(self) -> list[str]:
        """Return a command that does the same."""
        return [sys.executable, "-c", ALLOCATE, self.name, str(self.gate)]

    def keys(self) -> list[str]:
        """Return all keys of its runs, claims included."""
        store = open_store(store_config())
        return list(store.list_keys(f"{store.config.prefix}/{self.name}"))


def command(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("scythe")), *words]


def killed(words: Sequence[str], moment: Moment) -> None:
    """Run a command until the moment."""
    with s3_proxy(moment) as proxy:
        done = proxy.run(words, cwd=APPS / "retry")
    assert done.returncode == -9, (str(moment), done.returncode, done.stderr, proxy.log)


def here(*words: str) -> tuple[int, str, str]:
    """Run a command in this process; what it says is a result or one sentence."""
    out, err = io.StringIO(), io.StringIO()
    with _one_at_a_time, redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    notes = [line for line in err.getvalue().splitlines() if line.startswith("scythe: ")]
    assert code in (0, 1) or (code == 2 and len(notes) == 1), (words, code, err.getvalue())
    return code, out.getvalue(), err.getvalue()


def cancel(run_id: str) -> str:
    """Cancel a run, in a process of its own since it may wait for another; return its state."""
    words = command("cancel", run_id, "--json")
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["state"])


def state_of(run_id: str) -> str:
    return str(json.loads(here("status", run_id, "--json")[1])["state"])


def at_once(function: Callable[..., None], cases: Sequence[tuple[Any, ...]]) -> None:
    """Call a function for several cases, which wait most of the time."""
    with ThreadPoolExecutor(len(cases)) as threads:
        for _ in threads.map(lambda case: function(*case), cases):
            pass


def allocated(folder: Path, moments: Sequence[Moment]) -> list[tuple[Case, Any, Moment]]:
    """Start a run for each moment."""
    cases = [Case(folder) for _ in moments]
    return [(case, case.allocate(), moment) for case, moment in zip(cases, moments, strict=True)]


def check_all_ended(run: Any, done: int) -> None:
    """Check that the tables have each of four leaves once."""
    ended = {
        name: run.results(name).column("sort_index").to_pylist() for name in ("scalars", "errors")
    }
    assert len(ended["scalars"]) == done
    assert sorted(ended["scalars"] + ended["errors"]) == [0, 1, 2, 3]
    assert run.results("leaves").column("sort_index").to_pylist() == [0, 1, 2, 3]
    assert not list(run.store().list_keys(run.layout.intermediate))


def retried(case: Case, run: Any) -> Any:
    """Run what a cancelled run lacks; return the new run."""
    case.gate.touch()
    code, out, err = here("retry", run.experiment_id, "--missing", "--json")
    assert code == 0, err
    again = scythe.open_run(json.loads(out)["run"])
    assert again.wait(timeout=SECONDS).done == 4
    check_all_ended(again, 4)
    return again


def delete_all(case: Case, *runs: Any, is_used: bool = True) -> None:
    """Delete runs; nothing is left. The last is used by those before it."""
    *users, source = runs
    if users and is_used:
        code, _, err = here("rm", source.experiment_id, "--yes")
        assert (code, users[0].experiment_id in err, "its leaves" in err) == (2, True, True)
    for run in runs:
        code, _, err = here("rm", run.experiment_id, "--yes")
        assert code == 0, err
    assert case.keys() == []


def mend(case: Case, moment: Moment, source: Any = None) -> None:
    """End, complete and delete what a killed `allocate` or `retry` left."""
    (run,) = [
        one for one in case.runs if source is None or one.experiment_id != source.experiment_id
    ]
    runs = [one for one in (run, source) if one]
    if moment == STARTS[0]:
        assert state_of(run.experiment_id) == "not_started"
        assert cancel(run.experiment_id) == "not_started"
        code, _, err = here("retry", run.experiment_id, "--missing")
        assert (code, "Allocate its specs again" in err) == (2, True)
        delete_all(case, *runs, is_used=False)
        return
    is_started = moment != STARTS[1]
    if is_started:
        wait_until(lambda: run.status().done == 2, "two leaves are done", SECONDS)
    assert (cancel(run.experiment_id), state_of(run.experiment_id)) == ("cancelled", "cancelled")
    check_all_ended(run, 2 if source or is_started else 0)
    delete_all(case, retried(case, run), *runs)


def test_cancel_without_a_worker(tmp_path: Path) -> None:
    def check(case: Case, run: Any, moment: Moment) -> None:
        killed(command("cancel", run.experiment_id), moment)
        code, _, err = here("rm", run.experiment_id, "--yes")
        if code == 0:  # it was over
            assert case.keys() == []
            return
        assert f"scythe cancel {run.experiment_id}" in err
        assert cancel(run.experiment_id) == "cancelled"
        check_all_ended(run, 0)

    at_once(check, allocated(tmp_path, CANCELS))  # no worker takes them


def test_allocate(served: None, tmp_path: Path) -> None:
    def check(moment: Moment) -> None:
        case = Case(tmp_path)
        killed(case.allocation(), moment)
        mend(case, moment)

    at_once(check, [(moment,) for moment in STARTS])


def test_retry(served: None, tmp_path: Path) -> None:
    def check(case: Case, first: Any, moment: Moment) -> None:
        wait_until(lambda: first.status().done == 2, "two leaves are done", SECONDS)
        assert first.cancel().done == 2
        before = first.store().get_bytes(first.layout.final_table("leaves"))
        killed(command("retry", first.experiment_id, "--missing"), moment)
        assert first.store().get_bytes(first.layout.final_table("leaves")) == before
        mend(case, moment, first)

    at_once(check, allocated(tmp_path, STARTS[:3:2]))


def test_cancel_while_leaves_run(served: None, tmp_path: Path) -> None:
    case = Case(tmp_path)
    run = case.allocate()
    wait_until(lambda: run.status().done == 2, "two leaves are done", SECONDS)
    killed(command("cancel", run.experiment_id), CANCELS[0])
    assert run.wait(timeout=SECONDS).state == "cancelled"  # the root has seen it
    check_all_ended(run, 2)
    assert cancel(run.experiment_id) == "cancelled"
    delete_all(case, retried(case, run), run)


def test_pause_and_resume(served: None, tmp_path: Path) -> None:
    case = Case(tmp_path)
    run = case.allocate()
    wait_until(lambda: run.status().done == 2, "two leaves are done", SECONDS)
    killed(command("pause", run.experiment_id), Moment("after", "PUT .*/pause.json"))
    assert state_of(run.experiment_id) == "paused"
    killed(command("resume", run.experiment_id), Moment("before", "DELETE .*/pause.json"))
    assert state_of(run.experiment_id) == "paused"
    killed(command("resume", run.experiment_id), Moment("after", "DELETE .*/pause.json"))
    assert state_of(run.experiment_id) == "running"
    case.gate.touch()
    assert run.wait(timeout=SECONDS).done == 4
    check_all_ended(run, 4)
    delete_all(case, run)


def test_rm(served: None, tmp_path: Path) -> None:
    def check(case: Case, run: Any, moment: Moment) -> None:
        case.gate.touch()
        run.wait(timeout=SECONDS)
        killed(command("rm", run.experiment_id, "--yes"), moment)
        assert state_of(run.experiment_id) in ("done", "not_started")
        code, _, err = here("retry", run.experiment_id, "--leaf", "1")
        assert (code, "has no manifest: its allocation or its deletion" in err) == (2, True)
        cancel(run.experiment_id)
        delete_all(case, run)

    at_once(check, allocated(tmp_path, DELETIONS))


def test_results_in_a_file(served: None, tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.gate.touch()
    run = case.allocate()
    run.wait(timeout=SECONDS)
    file = tmp_path / "results.csv"
    words = ("results", run.experiment_id, "--to", str(file))
    killed(command(*words), Moment("after", "GET .*/final/scalars.pq"))
    assert not file.exists()
    assert here(*words)[0] == 0
    assert len(file.read_text().splitlines()) == 5
    delete_all(case, run)
