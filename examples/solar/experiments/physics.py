"""From a typical year of weather and a design to hourly power, with the models of pvlib.

Every hour of the weather file is one step; the models, and where each comes from, are named at
the functions that use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pvlib

ModuleType = Literal["standard", "premium", "thin-film"]

ALBEDO = 0.2  # of grass and soil; the file's own column has no measurements
INVERTER_EFFICIENCY = 0.96  # nominal, as in PVWatts version 5
STANDARD_IRRADIANCE = 1000.0  # W/m2, at which modules are rated
ANY_YEAR = 1990  # the months of a typical year come from different ones; this has 365 days
MOUNTING = pvlib.temperature.TEMPERATURE_MODEL_PARAMETERS["sapm"]["open_rack_glass_polymer"]


@dataclass(frozen=True, slots=True)
class Module:
    """A type of module, as PVWatts describes it.

    Attributes:
        temperature_coefficient: Change of power with cell temperature [1/°C].
        coating_index: Refractive index of the anti-reflective coating; None for bare glass.
    """

    temperature_coefficient: float
    coating_index: float | None = None


# Table 3 of A. P. Dobos, PVWatts Version 5 Manual, NREL/TP-6A20-62641, 2014.
MODULES: dict[ModuleType, Module] = {
    "standard": Module(-0.0047),
    "premium": Module(-0.0035, coating_index=1.29),
    "thin-film": Module(-0.0020),
}


@dataclass(frozen=True, slots=True)
class Plant:
    """A photovoltaic plant.

    Attributes:
        tilt: Angle between modules and ground [°].
        azimuth: Direction that the modules face, clockwise from north [°].
        module: Type of the modules.
        dc_capacity: Power of all modules at standard test conditions [kW].
        ac_rating: Largest power of the inverter's output [kW].
        losses: Soiling, mismatch, wiring, … as a share of the DC power [-].
    """

    tilt: float
    azimuth: float
    module: ModuleType
    dc_capacity: float
    ac_rating: float
    losses: float


@dataclass(frozen=True, slots=True)
class Site:
    """A typical year at one place.

    Attributes:
        name: As the weather file has it.
        latitude: North of the equator [°].
        longitude: East of Greenwich [°].
        weather: One row an hour, labelled with its end in local standard time: `ghi`, `dni`,
            `dhi`, `dni_extra` [W/m2], `temp_air` [°C], `wind_speed` [m/s, 10 m above ground].
        sun: `apparent_zenith` and `azimuth` [°] at the middle of each hour.
    """

    name: str
    latitude: float
    longitude: float
    weather: pd.DataFrame
    sun: pd.DataFrame


def read_site(tmy3_file: Path) -> Site:
    """Read a typical year in the TMY3 format and say where the sun stands.

    Solar position: NREL's SPA (I. Reda, A. Andreas, Solar Energy 76(5), 2004), at the middle of
    the hour over which TMY3 averages irradiance (S. Wilcox, W. Marion, Users Manual for TMY3 Data
    Sets, NREL/TP-581-43156, 2008).

    Args:
        tmy3_file: The weather file.

    Returns:
        The site, 8760 hours.
    """
    data, header = pvlib.iotools.read_tmy3(tmy3_file, coerce_year=ANY_YEAR, map_variables=True)
    columns = ["ghi", "dni", "dhi", "dni_extra", "temp_air", "wind_speed"]
    weather = data[columns].astype(float)
    sun = pvlib.solarposition.get_solarposition(
        weather.index - pd.Timedelta(minutes=30),
        header["latitude"],
        header["longitude"],
        altitude=header["altitude"],
        temperature=float(weather["temp_air"].mean()),
    )
    sun.index = weather.index
    place = header["Name"].strip(' "').title()
    return Site(
        name=f"{place}, {header['State']}",
        latitude=header["latitude"],
        longitude=header["longitude"],
        weather=weather,
        sun=sun[["apparent_zenith", "azimuth"]],
    )


def simulate_year(site: Site, plant: Plant) -> pd.DataFrame:
    """Simulate a plant for a typical year.

    Args:
        site: The weather.
        plant: The plant.

    Returns:
        One row an hour: `poa_irradiance` in the plane of the modules, before reflection [W/m2],
        `cell_temperature` [°C], `dc_power`, `ac_power`, and `clipped_power` that the inverter was
        too small for [kW].
    """
    plane = _plane_irradiance(site, plant)
    weather = site.weather
    # Cell temperature: D. L. King et al., Photovoltaic Array Performance Model, SAND2004-3535,
    # 2004; it takes the wind at 10 m, where TMY3 has it.
    cell = pvlib.temperature.sapm_cell(
        plane["poa_global"], weather["temp_air"], weather["wind_speed"], **MOUNTING
    )
    # DC power: PVWatts version 5 (Dobos 2014), section 8.
    dc = pvlib.pvsystem.pvwatts_dc(
        _absorbed(site, plant, plane),
        cell,
        plant.dc_capacity,
        MODULES[plant.module].temperature_coefficient,
    ) * (1 - plant.losses)
    ac, clipped = _inverter(dc, plant.ac_rating)
    return pd.DataFrame(
        {
            "poa_irradiance": plane["poa_global"],
            "cell_temperature": cell,
            "dc_power": dc,
            "ac_power": ac,
            "clipped_power": clipped,
        }
    )


def performance_ratio(energy: float, irradiation: float, dc_capacity: float) -> float:
    """Return the performance ratio of IEC 61724-1:2021: final yield over reference yield [-].

    Args:
        energy: AC energy [kWh].
        irradiation: In the plane of the modules [kWh/m2].
        dc_capacity: At standard test conditions [kW].
    """
    final_yield = energy / dc_capacity
    reference_yield = irradiation / (STANDARD_IRRADIANCE / 1000)
    return final_yield / reference_yield


def _plane_irradiance(site: Site, plant: Plant) -> pd.DataFrame:
    """Transpose irradiance to the plane of the modules.

    R. Perez et al., Modeling daylight availability and irradiance components from direct and
    global irradiance, Solar Energy 44(5), 1990; air mass after F. Kasten, A. T. Young, Applied
    Optics 28(22), 1989.
    """
    weather, sun = site.weather, site.sun
    plane = pvlib.irradiance.get_total_irradiance(
        plant.tilt,
        plant.azimuth,
        sun["apparent_zenith"],
        sun["azimuth"],
        weather["dni"],
        weather["ghi"],
        weather["dhi"],
        dni_extra=weather["dni_extra"],
        airmass=pvlib.atmosphere.get_relative_airmass(sun["apparent_zenith"]),
        albedo=ALBEDO,
        model="perez",
    )
    # Without any light, and the sun just above the horizon, Perez's clearness is 0/0.
    return plane.fillna(0.0)


def _absorbed(site: Site, plant: Plant, plane: pd.DataFrame) -> pd.Series:
    """Take off what the glass reflects.

    Beam: Fresnel's and Snell's laws (W. De Soto et al., Solar Energy 80(1), 2006). Sky and ground:
    the same, integrated (B. Marion, Solar Energy 147, 2017).
    """
    coating = MODULES[plant.module].coating_index
    optics = {} if coating is None else {"n_ar": coating}
    incidence = pvlib.irradiance.aoi(
        plant.tilt, plant.azimuth, site.sun["apparent_zenith"], site.sun["azimuth"]
    )
    diffuse = pvlib.iam.marion_diffuse("physical", plant.tilt, **optics)
    return (
        plane["poa_direct"] * pvlib.iam.physical(incidence, **optics)
        + plane["poa_sky_diffuse"] * diffuse["sky"]
        # A horizontal module sees no ground, and the factor for it is not defined.
        + (plane["poa_ground_diffuse"] * diffuse["ground"] if plant.tilt > 0 else 0.0)
    )


def _inverter(dc: pd.Series, ac_rating: float) -> tuple[pd.Series, pd.Series]:
    """Return the inverter's output, and what it clips [kW].

    Part-load efficiency and limit: PVWatts version 5 (Dobos 2014), section 11. What is clipped is
    what the same inverter would deliver at its nominal efficiency if it had no limit.
    """
    dc_limit = ac_rating / INVERTER_EFFICIENCY
    ac = pvlib.inverter.pvwatts(dc, dc_limit, eta_inv_nom=INVERTER_EFFICIENCY)
    unlimited = ac.where(dc <= dc_limit, dc * INVERTER_EFFICIENCY)
    return ac, unlimited - ac
