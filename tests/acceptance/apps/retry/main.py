"""Leaves that fail until a file is there, as if their code had been fixed."""

import time
from pathlib import Path

import pandas as pd
from pydantic import Field

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference
from scythe.worker import ScytheWorkerConfig


class PatchyInput(ExperimentInputSpec):
    number: int
    gate: str = Field("", description="The leaf fails until this file is there")
    holds: bool = Field(False, description="The leaf waits for that file instead")
    weather: FileReference | None = Field(None, description="A text file")


class PatchyOutput(ExperimentOutputSpec):
    doubled: int
    words: str
    plot: FileReference | None


@ExperimentRegistry.Register(name="patchy", retries=0)
def patchy(input_spec: PatchyInput, tempdir: Path) -> PatchyOutput:
    """Double a number, write a file and a table."""
    gate = Path(input_spec.gate)
    while input_spec.holds and not gate.exists():
        time.sleep(0.05)
    if input_spec.gate and not gate.exists():
        raise ValueError(f"no solution for {input_spec.number}")
    plot = None
    if input_spec.number % 10 in (1, 2):
        plot = tempdir / "plot.txt"
        plot.write_text(f"plot of {input_spec.number}")
    hours = pd.DataFrame({"load": [input_spec.number, input_spec.number + 0.5]})
    words = input_spec.weather.read_text() if isinstance(input_spec.weather, Path) else ""
    return PatchyOutput(
        doubled=2 * input_spec.number, words=words, plot=plot, dataframes={"hours": hours}
    )


@ExperimentRegistry.Register(name="dice", retries=0, reusable=False)
def dice(input_spec: PatchyInput, tempdir: Path) -> PatchyOutput:
    """Do the same, as if it were random on purpose."""
    return patchy(input_spec, tempdir)


if __name__ == "__main__":
    ScytheWorkerConfig().start()
