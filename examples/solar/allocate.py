"""Run the study: `python allocate.py`. A worker (`python main.py`) runs its leaves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from designs import FULL_GRID, WEATHER_FILE, make_designs
from experiments import PVDesign, pv_yield
from experiments.physics import read_site
from report import draw_map, print_errors, print_report, read_scalars

from scythe.errors import ScytheError
from scythe.experiments import BaseExperiment, ExperimentRun


def start(designs: Sequence[PVDesign]) -> ExperimentRun:
    """Upload the weather file and start a run of these designs, as the next minor version."""
    run, _ = BaseExperiment(runnable=pv_yield).allocate(designs, version="bumpminor")
    print(f"Allocated {len(designs)} designs as {run.experiment_id}", flush=True)
    return run


def finish(run: ExperimentRun, weather_file: Path, out: Path) -> int:
    """Wait for a run, and show what came out of it.

    Returns:
        The exit code: 1 when leaves failed, 0 when all went well.
    """
    status = run.wait(progress=True)
    if status.done:
        scalars = read_scalars(run)
        print_report(run, scalars)
        picture = out / "yield.png"
        draw_map(scalars, read_site(weather_file).name, picture)
        print(f"\nThe map of yields: {picture.resolve()}")
    if status.state == "failed":
        print(f"\nThe run failed: {status.message}", file=sys.stderr)
        return 1
    if status.failed:
        print(f"\n{status.failed} of {status.total} leaves failed:", file=sys.stderr)
        print_errors(run)
        return 1
    return 0


def parse(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Read the options that this script and the demo have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--designs",
        type=int,
        default=FULL_GRID,
        metavar="N",
        help="run the largest grid with at most N designs (default: %(default)s)",
    )
    parser.add_argument(
        "--weather",
        type=Path,
        default=WEATHER_FILE,
        metavar="FILE",
        help="a typical year in the TMY3 format (default: Greensboro, North Carolina)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="FOLDER", help="where yield.png goes"
    )
    options = parser.parse_args(arguments)
    if options.designs < 1:
        parser.error("--designs must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parse(arguments, __doc__)
    try:
        run = start(make_designs(options.designs, options.weather))
        return finish(run, options.weather, options.out)
    except ScytheError as error:
        print(f"allocate.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: the run goes on without this script.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
