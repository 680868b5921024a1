"""Which share of a GPU and of two CPUs is in use while leaves of both kinds wait, on Ray.

    python -m benchmarks.classes [--seconds 0.3 1 3] [--gpu-leaves 10]

Two runs at one time, whose `leaves.pq` have the times of all leaves: those that need a CPU, and
those that need a CPU and the one (logical) GPU. The shares are those between the start of the
first and the end of the last leaf with the GPU; leaves of both kinds wait all that time.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks.leaves import WaitInput, wait, wait_on_gpu
from benchmarks.serving import LEAVES, serving, worker_of
from benchmarks.table import Table
from scythe.environment import require_engine
from scythe.experiments import BaseExperiment

_LIMIT = 600.0  # seconds


def shares(gpu_leaves: int, seconds: float) -> tuple[float, float, int]:
    """Return the shares of GPU and CPUs, and how many processes had the GPU."""
    # With the GPU's leaves on one CPU, as many run on the other meanwhile; the rest wait.
    counts = {wait: 2 * gpu_leaves + 4, wait_on_gpu: gpu_leaves}
    started = [_start(experiment, n, seconds) for experiment, n in counts.items()]
    tables = []
    for run, reference in started:
        reference.result(timeout=_LIMIT)
        tables.append(run.results("leaves"))
    on_cpus, on_gpu = map(_spans, tables)
    begin, end = on_gpu[:, 0].min(), on_gpu[:, 1].max()
    gpu = _busy(on_gpu, begin, end)
    cpus = (gpu + _busy(on_cpus, begin, end)) / 2
    return gpu, cpus, len(pc.unique(tables[1].column("pid")))


def _start(experiment: Any, n: int, seconds: float) -> Any:
    specs = (WaitInput(experiment_id="", sort_index=i, seconds=seconds) for i in range(n))
    return BaseExperiment(runnable=experiment).allocate(specs, version="keep")


def _spans(leaves: Any) -> Any:
    times = [pc.cast(leaves.column(name), "int64").to_numpy() for name in ("started", "finished")]
    return np.column_stack(times) / 1e6


def _busy(spans: Any, begin: float, end: float) -> float:
    inside = np.clip(spans, begin, end)
    return float((inside[:, 1] - inside[:, 0]).sum() / (end - begin))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--gpu-leaves", type=int, default=10)
    options = parser.parse_args()
    require_engine()
    table = Table("leaf [s]", "leaves with GPU", "processes", "share of the GPU", "share of 2 CPUs")
    resources = {"SCYTHE_RAY_NUM_CPUS": "2", "SCYTHE_RAY_NUM_GPUS": "1"}
    slots = worker_of("ray", 2, **resources, SCYTHE_WORKER_HAS_GPU="True")
    with serving(LEAVES, **slots):
        shares(2, 0.1)  # the worker is there then
        for seconds in options.seconds:
            gpu, cpus, processes = shares(options.gpu_leaves, seconds)
            table.row(seconds, options.gpu_leaves, processes, gpu, cpus)


if __name__ == "__main__":
    main()
