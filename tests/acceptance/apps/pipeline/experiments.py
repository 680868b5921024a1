"""Two experiments, the second of which takes what the first has found."""

from pathlib import Path

import pandas as pd
from pydantic import Field
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference
from scythe.utils.results import make_onerow_multiindex_from_dict


class SampleInput(ExperimentInputSpec):
    r_value: float = Field(..., ge=0, le=15, description="Thermal resistance [m2K/W]")


class SampleOutput(ExperimentOutputSpec):
    loss: float = Field(..., description="Heat loss [kWh/m2]")
    hourly: FileReference = Field(..., description="Hourly losses")


class FitInput(ExperimentInputSpec):
    r_value: float
    loss: float


class FitOutput(ExperimentOutputSpec):
    error: float


@ExperimentRegistry.Register(name="pipeline_sample", retries=1)
def sample(input_spec: SampleInput, tempdir: Path) -> SampleOutput:
    loss = 100 / (1 + input_spec.r_value)
    hourly = tempdir / "hourly.pq"
    pd.DataFrame({"loss": [loss / 2, loss / 2]}).to_parquet(hourly)
    index = make_onerow_multiindex_from_dict({"r_value": input_spec.r_value}, n_rows=2)
    halves = pd.DataFrame({"half": [loss / 2, loss / 2]}, index=index)
    return SampleOutput(loss=loss, hourly=hourly, dataframes={"halves": halves})


@ExperimentRegistry.Register(name="pipeline_fit")
def fit(input_spec: FitInput) -> FitOutput:
    return FitOutput(error=input_spec.loss - 100 / (1 + input_spec.r_value))
