"""A worker made with Hatchet's SDK, not with ScytheWorkerConfig."""

import os

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.hatchet import hatchet
from scythe.registry import ExperimentRegistry
from scythe.scatter_gather import scatter_gather
from scythe.worker import ScytheWorkerLabel


class SquareInput(ExperimentInputSpec):
    x: float
    crash: bool = False


class SquareOutput(ExperimentOutputSpec):
    y: float


@ExperimentRegistry.Register(name="own_worker_square", retries=0)
def square(input_spec: SquareInput) -> SquareOutput:
    if input_spec.crash:
        os._exit(3)
    return SquareOutput(y=input_spec.x**2)


@hatchet.task(name="own_worker_gpu", desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label)
def on_gpu(input, ctx) -> dict:
    return {"gpu": True}


def main() -> None:
    worker = hatchet.worker(name="own-worker", slots=4)
    worker.register_workflow(scatter_gather)
    for experiment in ExperimentRegistry.experiments():
        worker.register_workflow(experiment)
    print("own worker starts", flush=True)
    worker.start()


if __name__ == "__main__":
    main()
