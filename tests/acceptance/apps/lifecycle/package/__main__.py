"""The script of `python -m package`: no import by name finds its experiment."""

import os

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig


class ModuleInput(ExperimentInputSpec):
    x: float


class ModuleOutput(ExperimentOutputSpec):
    y: float
    worker: str


@ExperimentRegistry.Register(name="lifecycle_module")
def doubled(input_spec: ModuleInput) -> ModuleOutput:
    return ModuleOutput(y=2 * input_spec.x, worker=os.environ["SCYTHE_TEST_WORKER"])


if __name__ == "__main__":
    ScytheWorkerConfig().start()
