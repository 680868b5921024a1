"""The examples as their users run them: their own scripts, the real stack, real Rays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from tests.acceptance.running import wait_until
from tests.example_modules import EXAMPLES, example_on_path

MARK = "SCYTHE_TEST_MARK"
LIMIT = 200.0  # seconds


class Script:
    """A script of an example, with all that it starts."""

    def __init__(self, path: Path, folder: Path, *options: str, **variables: str) -> None:
        self.log = folder / f"{uuid.uuid4().hex[:8]}.log"
        self._mark = uuid.uuid4().hex
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(path), *options],
                cwd=folder,
                # A Ray that somebody runs on this machine is not for the tests.
                env={
                    **os.environ,
                    "SCYTHE_RAY_ADDRESS": "local",
                    "SCYTHE_CACHE_DIR": str(folder / "cache"),
                    MARK: self._mark,
                    **variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        """Return every process that carries the script's mark in its environment."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def wait_for(self, text: str) -> None:
        def seen() -> bool:
            assert self.process.poll() is None, f"it ended:\n{self.output}"
            return text in self.output

        wait_until(seen, f"{text!r} in the output", LIMIT)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, wait for the end, and check that nothing is left."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(LIMIT)
        _, left = psutil.wait_procs(self.family(), timeout=5)
        assert not left, f"left over: {[item.cmdline() for item in left]}"
        return code


@contextmanager
def script(path: Path, folder: Path, *options: str, **variables: str) -> Generator[Script]:
    one = Script(path, folder, *options, **variables)
    try:
        yield one
    except BaseException:
        print(one.output)
        raise
    finally:
        for process in one.family():
            process.kill()
        one.process.wait(10)


def run_of(experiment: Any, output: str) -> Any:
    """Return the run whose id a script has printed."""
    from scythe.experiments import BaseExperiment

    for version in BaseExperiment(runnable=experiment).list_versions():
        for run in version.list_runs():
            if run.experiment_id in output:
                return run
    raise AssertionError(f"no run of {experiment} in:\n{output}")


def test_the_demo_runs_the_study_and_leaves_no_process(
    stack: dict[str, str], tmp_path: Path
) -> None:
    with script(EXAMPLES / "solar" / "demo.py", tmp_path, "--designs", "8") as demo:
        assert demo.end() == 0
        output = demo.output
    assert re.search(r"8 leaves ran in 2 processes \(pid \d+, \d+\)", output)
    assert "[kWh/kWp]" in output
    assert "8/8 leaves (100 %): 8 done, 0 failed" in output
    assert "s3://" in output
    assert not re.search("\x1b|\r", output), "control codes, and there is no terminal"
    assert (tmp_path / "out" / "yield.png").read_bytes().startswith(b"\x89PNG")
    with example_on_path("solar"):
        from experiments import pv_yield  # pyright: ignore[reportMissingImports]

        run = run_of(pv_yield, output)
    check_scalars(run.results("scalars").to_pandas(), run.results("monthly").to_pandas())
    files = run.results("result_file_refs").to_pandas()
    assert files["hourly"].str.endswith(".parquet").all()
    artifact = scalars_index(run)["weather_file"]
    assert artifact.nunique() == 1
    assert artifact.iloc[0].endswith("/artifacts/weather_file/723170TYA.CSV")
    assert run.status().done == 8


def scalars_index(run: Any) -> pd.DataFrame:
    return run.results("scalars").to_pandas().index.to_frame(index=False)


def check_scalars(scalars: pd.DataFrame, monthly: pd.DataFrame) -> None:
    assert {
        "annual_yield",
        "specific_yield",
        "poa_irradiation",
        "performance_ratio",
        "clipping_loss",
    } <= set(scalars.columns)
    assert {"tilt", "azimuth", "dc_ac_ratio", "dc_capacity", "ac_rating"} <= set(
        scalars.index.names
    )
    table = scalars.reset_index()
    assert table["performance_ratio"].between(0.7, 0.9).all()
    assert table.loc[table["dc_ac_ratio"] == 1.0, "performance_ratio"].between(0.75, 0.9).all()
    best = table.loc[table["specific_yield"].idxmax()]
    assert 1300 < best["specific_yield"] < 1450
    assert best["tilt"] == 40  # of 0, 20, 40 and 60, at a latitude of 36.1
    clipping = table.pivot_table("clipping_loss", index="tilt", columns="dc_ac_ratio")
    assert (clipping[1.6] > clipping[1.0]).all()
    sums = monthly.groupby(level="sort_index")["ac_energy_kwh"].sum()
    yields = scalars.groupby(level="sort_index")["annual_yield"].first()
    pd.testing.assert_series_equal(sums, yields, check_names=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_neither_processes_nor_leaves(
    stack: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    from scythe.hatchet import hatchet

    with script(EXAMPLES / "solar" / "demo.py", tmp_path) as demo:
        demo.wait_for(" leaves (")  # a line of the progress, not of the banner
        assert demo.end(number) == 130
        assert "interrupted" in demo.output
        output = demo.output
    with example_on_path("solar"):
        from experiments import pv_yield  # pyright: ignore[reportMissingImports]

        run = run_of(pv_yield, output)
    assert run.status().done < 105
    from datetime import UTC, timedelta

    from hatchet_sdk import V1TaskStatus

    def nothing_waits() -> bool:
        waiting = hatchet.runs.list(
            since=run.timestamp.replace(tzinfo=UTC) - timedelta(minutes=1),
            statuses=[V1TaskStatus.QUEUED, V1TaskStatus.RUNNING],
            additional_metadata={"experiment_id": run.experiment_id},
            only_tasks=True,
        )
        return not waiting.rows

    wait_until(nothing_waits, "all leaves of the run are cancelled", 30)


def test_labels_route_leaves_to_two_workers(stack: dict[str, str], tmp_path: Path) -> None:
    main, allocate = (EXAMPLES / "labels" / name for name in ("main.py", "allocate.py"))
    gpu_flags = {"SCYTHE_WORKER_HAS_GPU": "true", "SCYTHE_RAY_NUM_GPUS": "1"}
    memory_flags = {"SCYTHE_WORKER_HIGH_MEMORY": "true"}
    with (
        script(main, tmp_path, SCYTHE_WORKER_NAME="gpu", **gpu_flags) as gpu,
        script(main, tmp_path, SCYTHE_WORKER_NAME="memory", **memory_flags) as memory,
    ):
        gpu.wait_for("gpu is ready.")
        memory.wait_for("memory is ready.")
        assert "in_memory needs high_memory=yes, which this worker does not have" in gpu.output
        with script(allocate, tmp_path) as allocated:
            assert allocated.end() == 0
            output = allocated.output
        assert gpu.end(signal.SIGTERM) == 0
        assert memory.end(signal.SIGTERM) == 0
    with example_on_path("labels"):
        from experiments import in_memory, on_gpu  # pyright: ignore[reportMissingImports]

        on_one, on_other = (
            run_of(item, output).results("scalars").to_pandas() for item in (on_gpu, in_memory)
        )
    assert set(on_one["assigned"]) == {"1 CPU, 1 GPU"}
    assert set(on_one["cuda_visible_devices"]) == {"0"}
    assert set(on_other["assigned"]) == {"1 CPU, 1 high_memory"}
    assert set(on_other["cuda_visible_devices"]) == {""}
    (one_node,), (other_node,) = set(on_one["ray_node"]), set(on_other["ray_node"])
    assert one_node != other_node
    assert one_node in output
    assert other_node in output
