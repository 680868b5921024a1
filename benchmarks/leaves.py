"""Leaves of known cost, and the worker that serves them: `python -m benchmarks.leaves`."""

from __future__ import annotations

import time

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig, ScytheWorkerLabel


class NoopInput(ExperimentInputSpec):
    x: int


class NoopOutput(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(name="benchmark_noop")
def noop(input_spec: NoopInput) -> NoopOutput:
    return NoopOutput(y=2 * input_spec.x)


class BurnInput(ExperimentInputSpec):
    seconds: float


class BurnOutput(ExperimentOutputSpec):
    cpu_seconds: float


@ExperimentRegistry.Register(name="benchmark_burn")
def burn(input_spec: BurnInput) -> BurnOutput:
    """Take this much processor time in pure Python, which is what counts as the user's code."""
    begin = time.thread_time()
    while (taken := time.thread_time() - begin) < input_spec.seconds:
        sum(range(1000))
    return BurnOutput(cpu_seconds=taken)


class WaitInput(ExperimentInputSpec):
    seconds: float


class WaitOutput(ExperimentOutputSpec):
    pass


@ExperimentRegistry.Register(name="benchmark_wait")
def wait(input_spec: WaitInput) -> WaitOutput:
    """Hold a CPU of the executor, without using it."""
    time.sleep(input_spec.seconds)
    return WaitOutput()


@ExperimentRegistry.Register(
    name="benchmark_wait_gpu", desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label
)
def wait_on_gpu(input_spec: WaitInput) -> WaitOutput:
    """Hold a CPU and a GPU of the executor, without using them."""
    return wait(input_spec)


if __name__ == "__main__":
    ScytheWorkerConfig().start()
