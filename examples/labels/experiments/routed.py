"""Two experiments with different needs. Each says where its leaves ran."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from experiments.place import this_place
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerLabel


class PlacedOutput(ExperimentOutputSpec):
    """Where a leaf ran; see `Place`."""

    host: str = Field(..., description="The machine")
    pid: int = Field(..., description="The process")
    ray_node: str = Field(..., description="Ray's id of the node")
    assigned: str = Field(..., description="What Ray set aside for the leaf")
    cuda_visible_devices: str = Field(..., description="The GPUs that CUDA lets the leaf see")


class MatrixInput(ExperimentInputSpec):
    """A random symmetric matrix."""

    size: int = Field(default=400, ge=2, le=20_000, description="Rows and columns [-]")
    seed: int = Field(..., ge=0, description="Seed of the random numbers [-]")


class MatrixOutput(PlacedOutput):
    """The result of a computation on a GPU."""

    largest_eigenvalue: float = Field(..., description="By power iteration [-]")


class SortInput(ExperimentInputSpec):
    """Random numbers that are sorted in memory."""

    megabytes: int = Field(default=100, ge=1, le=1_000_000, description="Size of the numbers [MB]")
    seed: int = Field(..., ge=0, description="Seed of the random numbers [-]")


class SortOutput(PlacedOutput):
    """The result of a task that needs much memory."""

    median: float = Field(..., description="Of the numbers [-]")


@ExperimentRegistry.Register(desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label)
def on_gpu(input_spec: MatrixInput) -> MatrixOutput:
    """Find the largest eigenvalue of a matrix.

    It takes a worker and a Ray node with a GPU, of which each leaf has one to itself. NumPy stands
    for what would use it here: torch, JAX and CuPy see the GPUs in `CUDA_VISIBLE_DEVICES`.
    """
    numbers = np.random.default_rng(input_spec.seed).random((input_spec.size, input_spec.size))
    matrix = numbers + numbers.T
    vector = np.ones(input_spec.size)
    for _ in range(50):
        vector = matrix @ vector
        vector /= np.linalg.norm(vector)
    return MatrixOutput(
        largest_eigenvalue=float(vector @ matrix @ vector), **this_place().model_dump()
    )


@ExperimentRegistry.Register(desired_worker_labels=ScytheWorkerLabel.HIGH_MEMORY.worker_label)
def in_memory(input_spec: SortInput) -> SortOutput:
    """Sort many numbers in memory: on a worker, and a Ray node, that has much of it."""
    numbers = np.random.default_rng(input_spec.seed).random(input_spec.megabytes * 1_000_000 // 8)
    numbers.sort()
    return SortOutput(median=float(numbers[len(numbers) // 2]), **this_place().model_dump())
