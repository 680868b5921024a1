"""Workers with other code than a run was allocated with: the run says so, or does not use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.two_codes import Project, allocate
from tests.ray_bed import ray_bed

DEADLINE = 240


@pytest.fixture(scope="module")
def ray_env() -> Iterator[dict[str, str]]:
    """The environment of workers that share a Ray cluster."""
    with ray_bed(num_cpus=2) as bed:
        yield {**bed.environment, "SCYTHE_WORKER_EXECUTOR": "ray"}


@pytest.fixture(params=["local", "ray"])
def env(request: pytest.FixtureRequest, stack: dict[str, str]) -> dict[str, str]:
    """The environment of the workers, for each place where leaves run."""
    ray = request.getfixturevalue("ray_env") if request.param == "ray" else {}
    return {**stack, **ray}


def ended(run: Any) -> tuple[Any, Any, Any, Any]:
    """Wait for the end of a run; return its status, scalars, errors and leaves."""
    status = run.wait(timeout=DEADLINE)
    names = ("scalars", "errors", "leaves")
    frames = [run.results(name).to_pandas().reset_index() for name in names]
    return status, *frames


def test_a_run_says_that_leaves_ran_with_other_code(
    tmp_path: Path, env: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path)
    old, new = project.checkout("old", factor=1), project.checkout("new", factor=5)
    experiment = project.load(old)
    with project.worker(old, env), project.worker(new, env):
        run, ref = allocate(experiment)
        status, scalars, errors, leaves = ended(run)
        result = ref.result(timeout=DEADLINE)
        batch, _ = allocate(experiment, batch_size=6)
        of_batches, *_ = ended(batch)
    assert (status.state, status.done, status.failed, len(errors)) == ("done", 24, 0, 0)
    own = experiment.code.fingerprint
    rows = scalars[scalars["x"] > 0]
    others = int((rows["y"] == 5 * rows["x"]).sum()) + int(leaves["code"][0] != own)
    codes = Counter(leaves["code"])
    assert 0 < others < 24
    assert (status.code_mismatches, result.code_mismatches) == (others, others)
    assert codes[own] == 24 - others
    assert dict(codes) == result.codes == run.manifest().codes
    assert len(codes) == 2
    assert run.manifest().code_mismatches == others
    assert run.manifest().workflow_run_id == ref.workflow_run_id
    assert run.manifest().code["fingerprint"] == own
    note = f"{others} ran with other code than was allocated"
    assert note in str(status)
    assert note in result.summary
    assert note in caplog.text
    assert of_batches.code_mismatches in (6, 12, 18)
    assert of_batches.done == 24


def test_all_rows_come_from_one_code_where_other_code_fails(
    tmp_path: Path, env: dict[str, str]
) -> None:
    project = Project(tmp_path)
    old, new = project.checkout("old", factor=1), project.checkout("new", factor=5)
    experiment = project.load(old)
    strict = {"SCYTHE_CODE_MISMATCH": "fail"}
    with (
        project.worker(new, env, **strict),
        project.worker(old, env, **strict),
    ):
        run, _ = allocate(experiment)
        status, scalars, errors, leaves = ended(run)
    assert (status.state, status.done, status.failed) == ("done", 24, 0), errors["message"][:2]
    assert scalars["y"].tolist() == list(range(24))
    assert set(leaves["code"]) == {experiment.code.fingerprint}
    assert status.code_mismatches == 0


def test_leaves_fail_where_no_worker_has_the_code(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    old, new = project.checkout("old"), project.checkout("new", factor=5, retries=0)
    experiment = project.load(old)
    monkeypatch.setenv("SCYTHE_CODE_MISMATCH", "fail")
    variables = {**env, "SCYTHE_CODE_MISMATCH": "warn"}
    with project.worker(new, variables):
        run, _ = allocate(experiment, 8)
        status, _, errors, leaves = ended(run)
        batch, _ = allocate(experiment, 8, batch_size=4)
        of_batches, _, errors_of_batches, _ = ended(batch)
    assert (status.done, status.failed) == (of_batches.done, of_batches.failed) == (0, 8)
    assert set(errors["kind"]) == set(errors_of_batches["kind"]) == {"code_mismatch"}
    assert "It returns the run's leaves" in (new / "worker.log").read_text()
    assert experiment.code.fingerprint in errors["message"][0]
    assert leaves["code"][0] in errors["message"][0]


def test_other_code_is_passed_over_where_the_user_says_so(
    tmp_path: Path, stack: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    old, new = project.checkout("old"), project.checkout("new", factor=5)
    experiment = project.load(old)
    monkeypatch.setenv("SCYTHE_CODE_MISMATCH", "ignore")
    with project.worker(new, stack, SCYTHE_CODE_MISMATCH="ignore"):
        run, ref = allocate(experiment, 4)
        status, _, _, leaves = ended(run)
    assert (status.done, status.code_mismatches) == (4, 0)
    assert "other code" not in str(status)
    assert run.manifest().codes == {leaves["code"][0]: 4}
    assert leaves["code"][0] != experiment.code.fingerprint


def test_a_model_with_other_fields_is_said_and_runs_no_leaf(
    tmp_path: Path, env: dict[str, str]
) -> None:
    project = Project(tmp_path)
    old, new = project.checkout("old"), project.checkout("new", field="orientation")
    experiment = project.load(old)
    with project.worker(new, env):
        run, _ = allocate(experiment, 4)
        status, _, errors, _ = ended(run)
        batch, _ = allocate(experiment, 4, batch_size=2)
        of_batches, _, errors_of_batches, _ = ended(batch)
    assert (status.done, status.failed) == (of_batches.done, of_batches.failed) == (0, 4)
    assert set(errors["kind"]) == set(errors_of_batches["kind"]) == {"schema_mismatch"}
    for message in (errors["message"][0], errors_of_batches["message"][0]):
        assert "only the run has azimuth; only the worker has orientation" in message


def test_leaves_with_another_model_go_to_a_worker_that_has_it(
    tmp_path: Path, stack: dict[str, str]
) -> None:
    project = Project(tmp_path)
    old, new = project.checkout("old"), project.checkout("new", field="orientation")
    experiment = project.load(old)
    with project.worker(new, stack), project.worker(old, stack):
        run, _ = allocate(experiment)
        status, scalars, errors, _ = ended(run)
    assert (status.done, status.failed) == (24, 0), errors["message"][:1]
    assert scalars["other"].tolist() == [2.0] * 24


def test_a_run_that_names_no_code_is_run_by_any_worker(
    tmp_path: Path, stack: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that an older version of Scythe has started."""
    from scythe.scatter.models import ScatterGatherInput

    project = Project(tmp_path)
    old, new = project.checkout("old"), project.checkout("new", field="orientation")
    experiment = project.load(old)

    def without_code(**fields: Any) -> ScatterGatherInput:
        return ScatterGatherInput(**{**fields, "run_code": None})

    monkeypatch.setattr("scythe.runs.allocate.ScatterGatherInput", without_code)
    with project.worker(new, stack, SCYTHE_CODE_MISMATCH="fail"):
        run, _ = allocate(experiment, 4)
        status, _, _, leaves = ended(run)
    assert (status.done, status.failed, status.code_mismatches) == (4, 0, 0)
    assert leaves["code"].notna().all()
