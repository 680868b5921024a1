"""Ctrl-C in a script that allocates a run or waits for one: one sentence, and nothing half done."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from scythe.experiments import BaseExperiment
from scythe.registry import ExperimentRegistry
from scythe.semver import SemVer
from scythe.storage.store import Store

SCRIPT = """
    import os, signal, sys, threading, time
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.experiments import BaseExperiment
    from scythe.registry import ExperimentRegistry
    from scythe.runs import allocate as allocation

    class In(ExperimentInputSpec):
        x: int

    class Out(ExperimentOutputSpec):
        y: int

    @ExperimentRegistry.Register(name="integration_interrupted")
    def experiment(spec: In) -> Out:
        return Out(y=spec.x)

    def some(count):
        yield from ({"x": i} for i in range(count))
        print("now", flush=True)
        time.sleep(60)

    def interrupted(*args, start=allocation.start_root):
        os.kill(os.getpid(), signal.SIGINT)
        return start(*args)

    how, folder = sys.argv[1:]
    base = BaseExperiment(runnable=experiment, run_name=folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the test's own may be ignored
    try:
        if how == "start":
            allocation.start_root = interrupted
        specs = some(int(how)) if how.isdigit() else [{"x": 1}]
        run, ref = base.allocate(specs)
        threading.Timer(1, print, ["now"], {"flush": True}).start()  # it waits by then
        ref.result() if how == "result" else run.wait(progress=how == "bar")
    except KeyboardInterrupt:
        if how != "wait and catch":
            raise
        print("caught")
"""


class Script:
    """The script of this module while it runs."""

    def __init__(self, folder: str, tmp_path: Path) -> None:
        self._folder, self._file = folder, tmp_path / "script.py"
        self._file.write_text(textwrap.dedent(SCRIPT))

    def interrupted(self, how: str) -> tuple[int, list[str], list[str]]:
        """Run it, press Ctrl-C when it says so, and return its exit code and lines."""
        process = subprocess.Popen(
            [sys.executable, self._file, how, self._folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        assert process.stdout is not None
        if how != "start":
            assert process.stdout.readline() == "now\n"
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.splitlines(), err.strip().splitlines()


@pytest.fixture
def script(folder: str, tmp_path: Path) -> Script:
    return Script(folder, tmp_path)


def runs_of(folder: str) -> list[Any]:
    runnable = ExperimentRegistry.experiments()[0]
    versions = BaseExperiment[Any, Any](runnable=runnable, run_name=folder).list_versions()
    return [run for version in versions for run in version.list_runs()]


@pytest.mark.parametrize("specs", ["1", "10000"])  # before a folder is claimed, and after that
def test_before_the_start_nothing_is_left(
    script: Script, store: Store, folder: str, specs: str
) -> None:
    code, _, lines = script.interrupted(specs)
    assert lines == ["scythe: allocate was interrupted: nothing was started."]
    assert code == 130
    assert list(store.list_keys(f"{store.config.prefix}/{folder}")) == []


def test_while_the_run_starts_it_is_started(script: Script, app: Any, folder: str) -> None:
    code, out, lines = script.interrupted("start")
    (run,) = runs_of(folder)
    assert lines == [
        f"scythe: The run continues: {run.experiment_id}. Cancel it with run.cancel()."
    ]
    assert (code, out) == (130, [])
    cancel(run)


@pytest.mark.parametrize("how", ["wait", "bar", "result"])
def test_a_run_that_is_awaited_continues(script: Script, app: Any, folder: str, how: str) -> None:
    code, _, lines = script.interrupted(how)
    (run,) = runs_of(folder)
    if how == "result":
        assert re.fullmatch(r"scythe: The run continues: [0-9a-f-]{36}\.", lines[-1])
    else:
        assert lines[-1] == (
            f"scythe: The run continues: {run.experiment_id}. Cancel it with run.cancel()."
        )
    assert "Traceback" not in "".join(lines)
    assert code == 130
    cancel(run)


def test_a_program_may_catch_it(script: Script, app: Any, folder: str) -> None:
    code, out, lines = script.interrupted("wait and catch")
    (run,) = runs_of(folder)
    name = run.experiment_id
    hints = f"Watch it: scythe watch {name}. Cancel it: scythe cancel {name}"
    assert (code, out) == (0, ["caught"])
    assert lines == [f"scythe: Started {name}. {hints}"]
    cancel(run)


def cancel(*runs: Any) -> None:
    from scythe.engine.client import cancel_run

    for run in runs:
        assert run.versioned_experiment.version == SemVer(major=1)
        assert run.manifest().workflow_run_id is not None
        cancel_run(run.manifest().workflow_run_id)
