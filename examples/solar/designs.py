"""The design space: a full grid of tilt, azimuth and inverter sizing."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pvlib
from experiments import PVDesign

TILT = (0.0, 60.0)  # deg
AZIMUTH = (90.0, 270.0)  # deg: from east over south to west
DC_AC_RATIO = (1.0, 1.6)
FULL_GRID = 7 * 5 * 3

# A typical year that was measured at Greensboro, North Carolina; pvlib ships it.
WEATHER_FILE = Path(pvlib.__file__).parent / "data" / "723170TYA.CSV"


def make_designs(count: int = FULL_GRID, weather_file: Path = WEATHER_FILE) -> list[PVDesign]:
    """Return a full grid of designs.

    Args:
        count: The grid has at most so many designs.
        weather_file: A typical year in the TMY3 format.
    """
    tilts, azimuths, ratios = grid_steps(count)
    grid = product(spread(*TILT, tilts), spread(*AZIMUTH, azimuths), spread(*DC_AC_RATIO, ratios))
    return [
        PVDesign(
            experiment_id="placeholder",  # the run's id takes its place
            sort_index=index,
            weather_file=weather_file,
            tilt=tilt,
            azimuth=azimuth,
            dc_ac_ratio=ratio,
        )
        for index, (tilt, azimuth, ratio) in enumerate(grid)
    ]


def grid_steps(count: int) -> tuple[int, int, int]:
    """Return how many tilts, azimuths and sizings the largest grid within `count` designs has.

    The number of azimuths is odd, so that one of them is south.
    """
    sizes = [
        (tilts * azimuths * ratios, ratios, azimuths, tilts)
        for ratios in (1, 2, 3)
        for azimuths in range(1, 38, 2)
        for tilts in range(azimuths, 2 * azimuths + 3)
        if tilts * azimuths * ratios <= count
    ]
    _, ratios, azimuths, tilts = max(sizes)
    return tilts, azimuths, ratios


def spread(low: float, high: float, steps: int) -> list[float]:
    """Return `steps` numbers from `low` to `high`; the middle where it is only one."""
    if steps == 1:
        return [(low + high) / 2]
    return [round(low + (high - low) * step / (steps - 1), 6) for step in range(steps)]
