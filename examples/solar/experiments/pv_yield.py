"""The experiment: the yield of one photovoltaic design in a typical year."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pydantic import Field

from experiments.physics import ModuleType, Plant, performance_ratio, read_site, simulate_year
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference


class PVDesign(ExperimentInputSpec):
    """One design of a photovoltaic plant, and the weather that it stands in."""

    weather_file: FileReference = Field(
        ..., description="A typical year: one hour a row, in the TMY3 format"
    )
    tilt: float = Field(..., ge=0, le=90, description="Angle between modules and ground [deg]")
    azimuth: float = Field(
        ..., ge=0, le=360, description="Where the modules face: 90 east, 180 south [deg]"
    )
    module: ModuleType = Field(default="premium", description="Type of module, as in PVWatts")
    module_power: float = Field(
        default=400, ge=50, le=1000, description="Power of one module at STC [W]"
    )
    module_count: int = Field(default=20, ge=1, le=1_000_000, description="Number of modules [-]")
    dc_ac_ratio: float = Field(
        default=1.2, ge=0.5, le=3, description="Power of the modules over that of the inverter [-]"
    )
    system_losses: float = Field(
        default=14, ge=0, le=90, description="Soiling, mismatch, wiring, ... as in PVWatts [%]"
    )

    @property
    def dc_capacity(self) -> float:
        """Power of all modules at standard test conditions [kWp]."""
        return self.module_power * self.module_count / 1000

    @property
    def computed_features(self) -> dict[str, int | float | str]:
        """Sizes that follow from the fields [kWp, kW]: further levels of the tables' index."""
        return {
            "dc_capacity": self.dc_capacity,
            "ac_rating": self.dc_capacity / self.dc_ac_ratio,
        }


class PVYield(ExperimentOutputSpec):
    """The yield of the plant in a typical year; `dataframes["monthly"]` has a row per month."""

    annual_yield: float = Field(..., ge=0, description="AC energy [kWh]")
    specific_yield: float = Field(..., ge=0, description="AC energy per DC power [kWh/kWp]")
    poa_irradiation: float = Field(
        ..., ge=0, description="Irradiation in the plane of the modules [kWh/m2]"
    )
    performance_ratio: float = Field(
        ..., ge=0, le=1, description="Final over reference yield, IEC 61724-1 [-]"
    )
    clipping_loss: float = Field(
        ..., ge=0, le=100, description="AC energy lost as the inverter is too small [%]"
    )
    hourly: FileReference = Field(..., description="Every hour of the year, as Parquet")


@ExperimentRegistry.Register(retries=1)
def pv_yield(input_spec: PVDesign, tempdir: Path) -> PVYield:
    """Simulate a photovoltaic plant for a typical year, hour by hour."""
    site = read_site(Path(str(input_spec.weather_file)))
    capacity = input_spec.dc_capacity
    hours = simulate_year(
        site,
        Plant(
            tilt=input_spec.tilt,
            azimuth=input_spec.azimuth,
            module=input_spec.module,
            dc_capacity=capacity,
            ac_rating=capacity / input_spec.dc_ac_ratio,
            losses=input_spec.system_losses / 100,
        ),
    )
    energy = float(hours["ac_power"].sum())  # kW over steps of one hour: kWh
    clipped = float(hours["clipped_power"].sum())
    irradiation = float(hours["poa_irradiance"].sum()) / 1000
    return PVYield(
        annual_yield=energy,
        specific_yield=energy / capacity,
        poa_irradiation=irradiation,
        performance_ratio=performance_ratio(energy, irradiation, capacity),
        clipping_loss=100 * clipped / (energy + clipped),
        hourly=_write_hours(hours, tempdir / "hourly.parquet"),
        dataframes={"monthly": _by_month(hours)},
    )


def _by_month(hours: pd.DataFrame) -> pd.DataFrame:
    """Sum up the hours by month: 12 rows. A table has no descriptions: units are in the names."""
    # The label is the end of an hour: midnight belongs to the day, and the month, before.
    month = pd.Index((hours.index - pd.Timedelta(minutes=30)).month, name="month")
    grouped = hours.groupby(month)
    return pd.DataFrame(
        {
            "ac_energy_kwh": grouped["ac_power"].sum(),
            "clipped_energy_kwh": grouped["clipped_power"].sum(),
            "poa_irradiation_kwh_m2": grouped["poa_irradiance"].sum() / 1000,
            "mean_cell_temperature_degc": grouped["cell_temperature"].mean(),
        }
    ).reset_index()


def _write_hours(hours: pd.DataFrame, path: Path) -> Path:
    """Write the hours, labelled with their end in local standard time: 8760 rows."""
    units = {
        "poa_irradiance": "poa_irradiance_w_m2",
        "cell_temperature": "cell_temperature_degc",
        "dc_power": "dc_power_kw",
        "ac_power": "ac_power_kw",
        "clipped_power": "clipped_power_kw",
    }
    hours.rename(columns=units).astype("float32").rename_axis("hour_ending").to_parquet(path)
    return path
