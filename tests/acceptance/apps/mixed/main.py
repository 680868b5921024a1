"""A worker whose experiments live in the script itself: good leaves, and leaves that fail."""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

from pydantic import Field

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.worker import ScytheWorkerConfig


class MixedInput(ExperimentInputSpec):
    mode: str = "good"
    seconds: float = Field(0.0, description="How long the leaf takes [s]")
    pid_file: str = Field("", description="Where the leaf writes its process id")


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
    time.sleep(input_spec.seconds)
    if input_spec.mode == "raise":
        raise ValueError(f"no solution for {input_spec.sort_index}")
    if input_spec.mode == "unpicklable":
        raise UnpicklableError("lock", "cannot travel")
    if input_spec.mode == "exit":
        sys.exit(3)
    if input_spec.mode == "segfault":
        ctypes.string_at(0)
    return MixedOutput(doubled=2 * input_spec.sort_index, process=os.getpid())


if __name__ == "__main__":
    ScytheWorkerConfig().start()
