"""The experiments of this project: `from experiments import *` registers them all."""

from __future__ import annotations

from experiments.pv_yield import PVDesign, PVYield, pv_yield

__all__ = ["PVDesign", "PVYield", "pv_yield"]
