"""The experiments of this project: `from experiments import *` registers them all."""

from __future__ import annotations

from experiments.routed import MatrixInput, SortInput, in_memory, on_gpu

__all__ = ["MatrixInput", "SortInput", "in_memory", "on_gpu"]
