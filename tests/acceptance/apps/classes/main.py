"""A worker whose leaves are limited by different resources."""

import os
import time

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.outcomes import LeafResources
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig, ScytheWorkerLabel


class Input(ExperimentInputSpec):
    seconds: float = 0.0


class Output(ExperimentOutputSpec):
    gpus: str


def work(seconds: float) -> Output:
    time.sleep(seconds)
    return Output(gpus=os.environ.get("CUDA_VISIBLE_DEVICES", ""))


@ExperimentRegistry.Register(name="classes_cpu")
def on_cpus(input_spec: Input) -> Output:
    """Needs a CPU only."""
    return work(input_spec.seconds)


@ExperimentRegistry.Register(
    name="classes_gpu", desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label
)
def on_gpus(input_spec: Input) -> Output:
    """Needs a whole GPU, and a worker that has one."""
    return work(input_spec.seconds)


@ExperimentRegistry.Register(
    name="classes_memory",
    desired_worker_labels=ScytheWorkerLabel.HIGH_MEMORY.worker_label,
    resources=LeafResources(cpus=2, custom={"high_memory": 2}),
)
def in_much_memory(input_spec: Input) -> Output:
    """Needs two CPUs with much memory."""
    return work(input_spec.seconds)


if __name__ == "__main__":
    ScytheWorkerConfig().start()
