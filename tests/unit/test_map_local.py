"""Leaves in a pool of processes, without engine and bucket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.errors import SpecError
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference


class PatchyInput(ExperimentInputSpec):
    number: int
    weather: FileReference | None = None


class PatchyOutput(ExperimentOutputSpec):
    doubled: int
    words: str
    plot: FileReference


@ExperimentRegistry.Register(name="patchy_map_local", retries=0)
def patchy(input_spec: PatchyInput, tempdir: Path) -> PatchyOutput:
    if input_spec.number == 2:
        raise ValueError("no solution for 2")
    plot = tempdir / "plot.txt"
    plot.write_text(f"plot of {input_spec.number}")
    assert isinstance(input_spec.weather, Path)
    return PatchyOutput(
        doubled=2 * input_spec.number,
        words=input_spec.weather.read_text(),
        plot=plot,
        dataframes={"hours": pd.DataFrame({"load": [input_spec.number, input_spec.number + 0.5]})},
    )


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HATCHET_CLIENT_TOKEN", "AWS_ENDPOINT_URL_S3", "SCYTHE_STORAGE_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCYTHE_DEV_HOME", str(tmp_path / "none"))


def test_the_tables_are_those_of_a_run(tmp_path: Path) -> None:
    weather = tmp_path / "weather.txt"
    weather.write_text("rain")
    specs = [PatchyInput(number=n, weather=weather) for n in range(5)]
    kept = tmp_path / "kept"
    tables = patchy.map_local(specs, processes=2, folder=kept)
    assert set(tables) == {"scalars", "hours", "result_file_refs", "errors", "leaves"}
    scalars = tables["scalars"]
    assert scalars.index.get_level_values("sort_index").tolist() == [0, 1, 3, 4]
    assert scalars["doubled"].tolist() == [0, 2, 6, 8]
    assert set(scalars["words"]) == {"rain"}
    assert tables["hours"]["load"].tolist() == [0, 0.5, 1, 1.5, 3, 3.5, 4, 4.5]
    assert tables["errors"]["message"].tolist() == ["no solution for 2"]
    assert tables["leaves"]["state"].tolist() == ["done", "done", "failed", "done", "done"]
    plots = [Path(path) for path in tables["result_file_refs"]["plot"]]
    assert [plot.read_text() for plot in plots] == [f"plot of {n}" for n in (0, 1, 3, 4)]
    assert all(plot.is_relative_to(kept) for plot in plots)


def test_no_spec_and_a_wrong_spec() -> None:
    with pytest.raises(SpecError, match="no specs to run"):
        patchy.map_local([])
    with pytest.raises(SpecError, match="Spec 0"):
        patchy.map_local([{"number": "many"}])


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "from scythe.base import ExperimentInputSpec, ExperimentOutputSpec\n"
        "from scythe.registry import ExperimentRegistry\n"
        "@ExperimentRegistry.Register()\n"
        "def f(spec: ExperimentInputSpec) -> ExperimentOutputSpec:\n"
        "    return ExperimentOutputSpec()\n"
        "tables = f.map_local([{}], processes=1)\n"
        "print(tables['errors'].message.tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "if __name__ == '__main__':" in done.stdout + done.stderr
