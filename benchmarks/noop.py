"""A leaf that does nothing, and the worker that serves it."""

from __future__ import annotations

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig


class NoopInput(ExperimentInputSpec):
    x: int


class NoopOutput(ExperimentOutputSpec):
    y: int


@ExperimentRegistry.Register(name="benchmark_noop")
def noop(input_spec: NoopInput) -> NoopOutput:
    return NoopOutput(y=2 * input_spec.x)


if __name__ == "__main__":
    ScytheWorkerConfig().start()
