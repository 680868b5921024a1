"""The physics of the solar example, as plain function calls."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from tests.example_modules import EXAMPLES, example_on_path

LATITUDE = 36.1  # of Greensboro
GLOBAL_HORIZONTAL = 1566.2  # kWh/m2 in the weather file

Simulate = Callable[..., Any]


@pytest.fixture(scope="module")
def solar() -> Generator[SimpleNamespace]:
    with example_on_path("solar"):
        import designs  # pyright: ignore[reportMissingImports]
        import experiments  # pyright: ignore[reportMissingImports]
        import report  # pyright: ignore[reportMissingImports]
        from experiments import physics  # pyright: ignore[reportMissingImports]

        yield SimpleNamespace(
            designs=designs, experiments=experiments, report=report, physics=physics
        )


@pytest.fixture
def simulate(solar: SimpleNamespace, tmp_path: Path) -> Simulate:
    def run(**fields: Any) -> Any:
        values = {"tilt": 30, "azimuth": 180, "weather_file": solar.designs.WEATHER_FILE, **fields}
        spec = solar.experiments.PVDesign(experiment_id="unit", sort_index=0, **values)
        return solar.experiments.pv_yield(spec, tempdir=tmp_path)

    return run


def test_a_plant_that_faces_south_yields_what_plants_there_do(simulate: Simulate) -> None:
    result = simulate()
    assert 1300 < result.specific_yield < 1450
    assert 1700 < result.poa_irradiation < 1850
    assert 0.75 < result.performance_ratio < 0.9
    assert result.annual_yield == pytest.approx(8 * result.specific_yield)
    reference_yield = result.poa_irradiation  # at 1 kW/m2
    assert result.performance_ratio == pytest.approx(result.specific_yield / reference_yield)


def test_the_best_tilt_is_near_the_latitude_and_the_best_azimuth_south(
    simulate: Simulate,
) -> None:
    by_tilt = {tilt: simulate(tilt=tilt).specific_yield for tilt in range(10, 61, 5)}
    assert abs(max(by_tilt, key=by_tilt.__getitem__) - LATITUDE) <= 10
    by_azimuth = {a: simulate(azimuth=a).specific_yield for a in (90, 135, 180, 225, 270, 360)}
    assert max(by_azimuth, key=by_azimuth.__getitem__) == 180
    assert min(by_azimuth, key=by_azimuth.__getitem__) == 360


def test_a_horizontal_plane_gets_the_global_irradiation_from_all_sides(simulate: Simulate) -> None:
    one, other = simulate(tilt=0, azimuth=90), simulate(tilt=0, azimuth=200)
    assert one.poa_irradiation == pytest.approx(GLOBAL_HORIZONTAL, rel=2e-3)
    assert one.annual_yield == pytest.approx(other.annual_yield, rel=1e-6)


def test_clipping_grows_with_the_ratio_of_dc_to_ac(simulate: Simulate) -> None:
    results = [simulate(dc_ac_ratio=ratio) for ratio in (1.0, 1.3, 1.6, 2.0)]
    losses = [result.clipping_loss for result in results]
    assert losses[0] == 0
    assert losses == sorted(losses)
    assert 2 < losses[2] < 5
    assert losses[3] < 20
    hours = pd.read_parquet(results[3].hourly)
    assert hours["ac_power_kw"].max() == pytest.approx(8 / 2.0, rel=1e-5)


def test_months_and_hours_add_up_to_the_year(simulate: Simulate) -> None:
    result = simulate(dc_ac_ratio=1.6)
    monthly = result.dataframes["monthly"]
    assert monthly["month"].tolist() == list(range(1, 13))
    assert monthly["ac_energy_kwh"].sum() == pytest.approx(result.annual_yield)
    assert monthly["poa_irradiation_kwh_m2"].sum() == pytest.approx(result.poa_irradiation)
    clipped = monthly["clipped_energy_kwh"].sum()
    assert 100 * clipped / (clipped + result.annual_yield) == pytest.approx(result.clipping_loss)
    by_month = monthly.set_index("month")["ac_energy_kwh"]
    assert by_month[[5, 6, 7]].min() > by_month[[11, 12, 1]].max()
    hours = pd.read_parquet(result.hourly)
    assert len(hours) == 8760
    assert hours["ac_power_kw"].sum() == pytest.approx(result.annual_yield, rel=1e-4)
    assert hours.notna().to_numpy().all()
    assert hours["ac_power_kw"].min() == 0
    # Labels are the ends of hours: none of the morning's light is before five o'clock.
    assert hours.loc[hours.index.hour.isin([1, 2, 3, 4]), "ac_power_kw"].max() == 0


def test_heat_costs_a_module_what_its_coefficient_says(simulate: Simulate) -> None:
    standard, thin = simulate(module="standard"), simulate(module="thin-film")
    assert thin.specific_yield > standard.specific_yield
    coated = simulate(module="premium")
    assert coated.poa_irradiation == standard.poa_irradiation
    assert coated.specific_yield > standard.specific_yield


def test_a_plant_of_twice_the_size_yields_twice_as_much(simulate: Simulate) -> None:
    one, two = simulate(module_count=20), simulate(module_count=40)
    assert two.annual_yield == pytest.approx(2 * one.annual_yield)
    assert two.specific_yield == pytest.approx(one.specific_yield)


@pytest.mark.parametrize(
    "fields",
    [{"tilt": 91}, {"tilt": -1}, {"azimuth": 361}, {"dc_ac_ratio": 0}, {"module": "unknown"}],
)
def test_a_design_out_of_bounds_is_refused(simulate: Simulate, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        simulate(**fields)


def test_the_schema_names_the_unit_of_every_number(solar: SimpleNamespace) -> None:
    for model in (solar.experiments.PVDesign, solar.experiments.PVYield):
        for name in model.__annotations__:
            field = model.model_fields[name]
            if field.annotation in (int, float):
                assert (field.description or "").endswith("]"), name


@pytest.mark.parametrize(
    ("count", "steps"), [(1, (1, 1, 1)), (8, (4, 1, 2)), (64, (7, 3, 3)), (105, (7, 5, 3))]
)
def test_the_grid_is_full_and_within_the_count(
    solar: SimpleNamespace, count: int, steps: tuple[int, int, int]
) -> None:
    made = solar.designs.make_designs(count)
    assert solar.designs.grid_steps(count) == steps
    assert len(made) == steps[0] * steps[1] * steps[2] <= count
    assert len({(d.tilt, d.azimuth, d.dc_ac_ratio) for d in made}) == len(made)
    assert 180 in {design.azimuth for design in made}


@pytest.mark.parametrize("count", [1, 8, 105, 2000])
def test_a_map_can_be_drawn_of_every_grid(
    solar: SimpleNamespace, tmp_path: Path, count: int
) -> None:
    made = solar.designs.make_designs(count)
    table = pd.DataFrame([design.model_dump(exclude={"weather_file"}) for design in made])
    table["specific_yield"] = range(len(table))
    picture = tmp_path / "new" / "yield.png"
    solar.report.draw_map(table, "Nowhere", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_compose_runs_the_engine_of_the_local_stack_on_loopback_only() -> None:
    from scythe.stack.engine_build import engine_version

    services = yaml.safe_load((EXAMPLES / "solar" / "compose.yaml").read_text())["services"]
    assert services["hatchet"]["image"].endswith(f":{engine_version()}")
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
