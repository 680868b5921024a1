"""Programs in the style of those that others have published for scythe-engine 1.3, unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scythe.outcomes import FailureKind
from tests.acceptance.running import APPS, load_app, pointed_at, wait_until, worker
from tests.example_modules import folder_on_path

EXECUTORS = ("local", "ray")


@pytest.fixture(scope="module", autouse=True)
def _stack(stack_env: dict[str, str]) -> Iterator[None]:
    with pointed_at(stack_env):
        yield


def script(app: str, name: str, stack_env: Mapping[str, str]) -> str:
    """Run a script of a program in its folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, name],
        cwd=APPS / app,
        env={**os.environ, **stack_env},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_ready(log: Path, text: str) -> None:
    wait_until(lambda: text in log.read_text(), f"{text!r} in the log", 120)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_pipeline_through_scatter_gather(
    executor: str, stack_env: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    variables = {"SCYTHE_WORKER_EXECUTOR": executor, **stack_env}
    with folder_on_path(APPS / "pipeline"), worker("pipeline", log, **variables):
        app = load_app("pipeline")
        wait_ready(log, " is ready.")
        done = app.pipeline.run(app.PipelineInput(run=f"pipeline-{uuid.uuid4().hex}", n=5))
    assert done.worst == 0.0
    assert done.tables == ["halves", "result_file_refs", "scalars"]


@pytest.mark.filterwarnings("ignore:Passing desired_worker_labels as a dict:DeprecationWarning")
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_worker_made_with_the_sdk(
    executor: str, stack_env: dict[str, str], tmp_path: Path
) -> None:
    from scythe.experiments import BaseExperiment

    app = load_app("own_worker")
    with worker("own_worker", tmp_path / "log", SCYTHE_WORKER_EXECUTOR=executor, **stack_env):
        assert app.square.run(app.SquareInput(experiment_id="e", sort_index=0, x=3)).y == 9.0
        base: Any = BaseExperiment(runnable=app.square, run_name=f"own-{uuid.uuid4().hex}")
        specs = [app.SquareInput(x=i, crash=i == 2) for i in range(4)]
        run, reference = base.allocate(specs)
        assert reference.result().n_failed == 1
    assert run.results().to_pandas()["y"].tolist() == [0.0, 1.0, 9.0]
    assert run.failures().column("kind").to_pylist() == [FailureKind.WORKER_CRASH]


def test_a_validation_runner_needs_no_server(stack_env: dict[str, str]) -> None:
    nothing = {"HATCHET_CLIENT_TOKEN": "", "SCYTHE_STORAGE_BUCKET": ""}
    output = script("validation", "validate.py", nothing)
    assert "{'brick': 10.0, 'wood': 5.0, 'glass': 3.333}" in output
    assert "'monthly': 6" in output
    assert "'scalars': 3" in output


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_submit_script_that_follows_a_manifest(
    executor: str, stack_env: dict[str, str], tmp_path: Path
) -> None:
    log, folder = tmp_path / "log", tmp_path / "é"  # which Ray does not take for its own files
    folder.mkdir()
    variables = {"SCYTHE_WORKER_EXECUTOR": executor, "TMPDIR": str(folder)}
    with worker("manifest", log, **variables, **stack_env):
        wait_ready(log, " is ready.")
        output = script("manifest", "submit.py", stack_env)
    assert "tag study durable 50" in log.read_text()
    assert "tables ['scalars'] ['scalars']" in output
    assert "areas [20.0, 40.0, 60.0]" in output
