"""Run both experiments at one time, and show where their leaves ran: `python allocate.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from experiments import MatrixInput, SortInput, in_memory, on_gpu

from scythe.errors import ScytheError
from scythe.experiments import BaseExperiment, ExperimentRun

COLUMNS = ["seed", "host", "ray_node", "pid", "assigned", "cuda_visible_devices"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the leaves and return the exit code: 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=4, help="of each experiment (%(default)s)")
    count = parser.parse_args(arguments).leaves
    try:
        runs = start(count)
        failed = [run.wait(progress=True).failed for run in runs]
        for run in runs:
            print_places(run)
    except ScytheError as error:
        print(f"allocate.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: the runs go on without this script.", file=sys.stderr)
        return 130
    return int(any(failed))


def start(count: int) -> list[ExperimentRun]:
    """Start a run of each experiment, with `count` leaves each."""
    fields = [{"experiment_id": "placeholder", "sort_index": i, "seed": i} for i in range(count)]
    specs = {on_gpu: [MatrixInput(**each) for each in fields]}
    specs |= {in_memory: [SortInput(**each) for each in fields]}
    return [
        BaseExperiment(runnable=experiment).allocate(given, version="bumpminor")[0]
        for experiment, given in specs.items()
    ]


def print_places(run: ExperimentRun) -> None:
    """Print where the leaves of a run ran, or why they failed."""
    print(f"\n{run.experiment_id}\n")
    errors = run.errors()
    if errors.num_rows:
        for message in errors.column("message").to_pylist():
            print(f"  failed: {message}")
        return
    places = run.results("scalars").to_pandas().reset_index()[COLUMNS]
    print(places.to_string(index=False))


if __name__ == "__main__":
    sys.exit(main())
