"""An experiment whose leaves run until they are let go."""

import os
import time
from pathlib import Path

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class HeldInput(ExperimentInputSpec):
    folder: str


class HeldOutput(ExperimentOutputSpec):
    worker: str
    pid: int


@ExperimentRegistry.Register(name="lifecycle_held", retries=0, execution_timeout="5m")
def held(input_spec: HeldInput) -> HeldOutput:
    folder = Path(input_spec.folder)
    (folder / f"started-{input_spec.sort_index}-{os.getpid()}").touch()
    deadline = time.monotonic() + 200
    while not (folder / "go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody let the leaf go")
        time.sleep(0.05)
    return HeldOutput(worker=os.environ["SCYTHE_TEST_WORKER"], pid=os.getpid())
