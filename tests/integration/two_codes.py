"""Two checkouts of one project, each with a worker, as after a deployment that is half done."""

from __future__ import annotations

import importlib
import sys
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.workers import WorkerProcess, running

ONE = """
import time
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from {package}.physics import gain

class Roof(ExperimentInputSpec):
    x: int
    seconds: float = 0.2
    {field}: float = 2.0

class Yield(ExperimentOutputSpec):
    y: float
    other: float

@ExperimentRegistry.Register(name="{package}", retries={retries})
def simulate(spec: Roof) -> Yield:
    time.sleep(spec.seconds)
    return Yield(y=gain(spec.x), other=spec.{field})
"""
MAIN = """
from {package}.one import simulate
from scythe.worker import ScytheWorkerConfig

if __name__ == "__main__":
    ScytheWorkerConfig().start()
"""


class Project:
    """A project of which there are checkouts with different code.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.package = folder, f"roofs_{uuid.uuid4().hex[:8]}"

    def checkout(
        self, name: str, *, factor: int = 1, field: str = "azimuth", retries: int = 1
    ) -> Path:
        """Write a checkout; `factor` is its code, and `field` a field of its model."""
        names = {"package": self.package, "field": field, "retries": retries}
        files = {
            f"{self.package}/__init__.py": "",
            f"{self.package}/one.py": ONE.format(**names),
            f"{self.package}/physics.py": f"def gain(x):\n    return {factor} * x\n",
            "main.py": MAIN.format(**names),
        }
        for path, text in files.items():
            file = self.folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return self.folder / name

    def load(self, checkout: Path) -> Any:
        """Import the experiment from a checkout, into this process."""
        for name in [one for one in sys.modules if one.partition(".")[0] == self.package]:
            del sys.modules[name]
        sys.path.insert(0, str(checkout))
        try:
            importlib.invalidate_caches()
            from scythe.registry import ExperimentRegistry

            ExperimentRegistry._experiments.pop(self.package, None)
            return importlib.import_module(f"{self.package}.one").simulate
        finally:
            sys.path.remove(str(checkout))

    @contextmanager
    def worker(
        self, checkout: Path, env: Mapping[str, str], **more: str
    ) -> Generator[WorkerProcess]:
        """Run the worker of a checkout, with two slots, until the end of the block."""
        variables = {
            **env,
            "SCYTHE_WORKER_SLOTS": "2",
            "SCYTHE_WORKER_NAME": f"{self.package}-{checkout.name}",
            **more,
        }
        log = checkout / "worker.log"
        with running(str(checkout), "main.py", log=log, **variables) as worker:
            worker.wait_ready(120)
            yield worker


def allocate(experiment: Any, count: int = 24, **options: Any) -> tuple[Any, Any]:
    """Start a run of an experiment."""
    from scythe.experiments import BaseExperiment

    specs = [{"x": number} for number in range(count)]
    return BaseExperiment(runnable=experiment).allocate(specs, version="bumppatch", **options)
