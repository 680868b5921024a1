"""A worker whose experiments live in the script itself: good leaves, and leaves that fail."""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig


class MixedInput(ExperimentInputSpec):
    mode: str = "good"
    seconds: float = Field(0.0, description="How long the leaf takes [s]")
    pid_file: str = Field("", description="Where the leaf writes its process id")
    trace: str = Field("", description="Where each try of a leaf writes a line")


class MixedOutput(ExperimentOutputSpec):
    doubled: int
    process: int


class UnpicklableError(Exception):
    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")
        self.lock = threading.Lock()


@ExperimentRegistry.Register(name="mixed", retries=1)
def mixed(input_spec: MixedInput) -> MixedOutput:
    """Do what the spec says."""
    if input_spec.pid_file:
        Path(input_spec.pid_file).write_text(str(os.getpid()))
    if input_spec.trace:
        with Path(input_spec.trace).open("a") as file:
            file.write(f"{input_spec.sort_index}\n")
    time.sleep(600 if input_spec.mode == "hang" else input_spec.seconds)
    if input_spec.mode == "raise":
        raise ValueError(f"no solution for {input_spec.sort_index}")
    if input_spec.mode == "unpicklable":
        raise UnpicklableError("lock", "cannot travel")
    if input_spec.mode == "exit":
        sys.exit(3)
    if input_spec.mode == "segfault":
        ctypes.string_at(0)
    tables = {}
    if input_spec.mode == "large":  # 50 MB that cannot be compressed
        tables["noise"] = pd.DataFrame(np.random.default_rng(1).random((1_000_000, 6)))
    return MixedOutput(doubled=2 * input_spec.sort_index, process=os.getpid(), dataframes=tables)


if __name__ == "__main__":
    ScytheWorkerConfig().start()
