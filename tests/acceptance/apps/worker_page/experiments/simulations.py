"""Experiments that say where and when they ran."""

import os
import time

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerLabel


class PageInput(ExperimentInputSpec):
    seconds: float = 0.0


class PageOutput(ExperimentOutputSpec):
    worker: str
    pid: int
    started: float
    finished: float


def look_around(seconds: float) -> PageOutput:
    started = time.time()
    time.sleep(seconds)
    return PageOutput(
        worker=os.environ["SCYTHE_TEST_WORKER"],
        pid=os.getpid(),
        started=started,
        finished=time.time(),
    )


@ExperimentRegistry.Register(name="page_simulation")
def simulation(input_spec: PageInput) -> PageOutput:
    return look_around(input_spec.seconds)


@ExperimentRegistry.Register(
    name="page_gpu_simulation",
    desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label,
)
def gpu_simulation(input_spec: PageInput) -> PageOutput:
    return look_around(input_spec.seconds)


@ExperimentRegistry.Register(
    name="page_heavy_gpu_simulation",
    desired_worker_labels={
        **ScytheWorkerLabel.HAS_GPU.worker_label,
        **ScytheWorkerLabel.HIGH_MEMORY.worker_label,
    },
)
def heavy_gpu_simulation(input_spec: PageInput) -> PageOutput:
    return look_around(input_spec.seconds)
