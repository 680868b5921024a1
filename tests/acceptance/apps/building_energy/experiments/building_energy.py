"""The example of scythe-engine's README, with a steady-state model in place of EnergyPlus."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference


class BuildingSimulationInput(ExperimentInputSpec):
    """Simulation inputs for a building energy model."""

    r_value: float = Field(default=..., description="The R-Value of the building [m2K/W]", ge=0, le=15)
    lpd: float = Field(default=..., description="Lighting power density [W/m2]", ge=0, le=20)
    setpoint: float = Field(default=..., description="Thermostat setpoint [deg.C]", ge=12, le=30)
    economizer: Literal["NoEconomizer", "DifferentialDryBulb", "DifferentialEnthalpy"] = Field(
        default=..., description="The type of economizer to use"
    )
    weather_file: FileReference = Field(default=..., description="Weather file [.epw]")
    design_day_file: FileReference = Field(default=..., description="Weather file [.ddy]")


class BuildingSimulationOutput(ExperimentOutputSpec):
    """Simulation outputs for a building energy model."""

    heating: float = Field(default=..., description="Annual heating energy usage, kWh/m2", ge=0)
    cooling: float = Field(default=..., description="Annual cooling energy usage, kWh/m2", ge=0)
    lighting: float = Field(default=..., description="Annual lighting energy usage, kWh/m2", ge=0)
    timeseries: FileReference = Field(default=..., description="High-res Timeseries data.")


@ExperimentRegistry.Register()
def simulate_energy(
    input_spec: BuildingSimulationInput, tempdir: Path
) -> BuildingSimulationOutput:
    """Initialize and execute an energy model of a building."""
    assert isinstance(input_spec.weather_file, Path)
    design_temp = float(Path(input_spec.design_day_file).read_text())
    temps = np.loadtxt(input_spec.weather_file)
    delta = input_spec.setpoint - temps
    resistance = max(input_spec.r_value, 0.1)
    timeseries = pd.DataFrame(
        {"heating": np.clip(delta, 0, None), "cooling": np.clip(-delta, 0, None)}
    ) / (resistance * 1000)
    timeseries_fpath = tempdir / "timeseries.pq"
    timeseries.to_parquet(timeseries_fpath)
    index = input_spec.make_multiindex(n_rows=len(timeseries) // 24)
    daily = timeseries.groupby(timeseries.index // 24).sum()
    daily["design"] = design_temp
    return BuildingSimulationOutput(
        heating=timeseries["heating"].sum(),
        cooling=timeseries["cooling"].sum(),
        lighting=input_spec.lpd * 3000 / 1000,
        timeseries=timeseries_fpath,
        dataframes={"daily": daily.set_index(index)},
    )
