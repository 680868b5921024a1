"""The worker of `test_runs.py`: leaves that do what their spec says."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from hatchet_sdk import Context

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.durations import NO_LIMIT
from scythe.hatchet import hatchet
from scythe.labels import ScytheWorkerLabel
from scythe.registry import ExperimentRegistry
from scythe.storage.files import FileReference
from scythe.worker import ScytheWorkerConfig


class Work(ExperimentInputSpec):
    """The spec of a leaf: what it does."""

    x: float = 1.0
    mode: str = ""
    size: int = 0
    text: str = ""
    anything: Any = None
    folder: str = ""
    weather: FileReference | None = None

    @property
    def computed_features(self) -> dict[str, int | float | str]:
        return {"half": self.x / 2}


class Done(ExperimentOutputSpec):
    """The output of a leaf."""

    y: float = 0.0
    text: str = ""
    anything: Any = None
    values: list[float] | None = None
    report: FileReference | None = None


def attempt_of(spec: Work) -> int:
    """Count the tries of a leaf, over processes, in a folder of the test's."""
    file = Path(spec.folder) / f"attempts-{spec.sort_index}"
    with file.open("a") as handle:
        handle.write("x")
    return file.stat().st_size


@ExperimentRegistry.Register(retries=2, execution_timeout="30s")
def work(spec: Work, tempdir: Path) -> Done:
    """Do what the spec says."""
    if spec.folder and spec.mode != "wait":
        attempt = attempt_of(spec)
        if spec.mode == "raise" or (spec.mode == "flaky" and attempt < spec.size):
            raise ValueError(f"attempt {attempt} of {spec.text}")
    if spec.mode == "odd error":
        raise ValueError("scythe-failure: QUJD\x00\n" + "é😀" * 5000 + spec.text)
    if spec.mode == "exit":
        raise SystemExit(9)
    if spec.mode == "wait":
        while not (Path(spec.folder) / "go").exists():
            time.sleep(0.05)
    done = Done(y=2 * spec.x, text=spec.text, anything=spec.anything)
    if spec.mode == "tables":
        frame = pd.DataFrame({"v": range(spec.size), "x": "column"})
        done.dataframes = {"loads": frame, "errors": frame.head(1)}
    if spec.mode == "values":
        done.values = [math.nan, *map(float, range(spec.size))]
    if spec.mode == "file":
        done.report = tempdir / "report.txt"
        name = spec.weather.read_text() if isinstance(spec.weather, Path) else ""
        done.report.write_text(f"report {spec.sort_index} {name}")
    return done


@ExperimentRegistry.Register(retries=2)
def say(spec: Work) -> Done:
    """Print something; then end the process, if asked to."""
    print(f"leaf {spec.sort_index} says\né\x00\n{spec.text}")
    if spec.size:
        os._exit(spec.size)
    return Done()


@ExperimentRegistry.Register(
    name="on_no_worker",
    schedule_timeout="2s",
    retries=0,
    desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label,
)
def on_no_worker(spec: Work) -> Done:
    """Needs a GPU, which the worker of this test has not."""
    return Done()


@ExperimentRegistry.Register(schedule_timeout=NO_LIMIT, execution_timeout=NO_LIMIT)
def unlimited(spec: Work) -> Done:
    """May wait and run as long as Hatchet takes."""
    return Done(y=spec.x)


@ExperimentRegistry.Register(max_running=1)
def licensed(spec: Work) -> Done:
    """Count the leaves that run at the same time: there must be no other one."""
    mine = Path(spec.folder) / f"running-{spec.sort_index}"
    mine.touch()
    time.sleep(0.3)
    beside = len(list(Path(spec.folder).glob("running-*")))
    mine.unlink()
    return Done(y=beside)


@ExperimentRegistry.Register(retries=2)
def hold(spec: Work) -> Done:
    """Leave a trace; then wait for a file, or kill a process that it runs in."""
    folder = Path(spec.folder)
    with (folder / f"began-{spec.sort_index}").open("a") as trace:
        trace.write("x")
    if spec.mode == "poison":
        os.kill(os.getppid(), signal.SIGKILL)
    if spec.mode == "kills the worker process":
        ancestors = psutil.Process().parents()
        main = next(n for n, one in enumerate(ancestors) if one.cmdline()[-1:] == ["main.py"])
        ancestors[main - 1].kill()
        time.sleep(600)
    while spec.mode in ("wait", "poison") and not (folder / "go").exists():
        time.sleep(0.05)
    return Done(y=2 * spec.x)


@ExperimentRegistry.Include
@hatchet.task(name="plain_leaf", input_validator=Work, retries=1)
def plain_leaf(spec: Work, context: Context) -> Done:
    """A Hatchet task of the user's own, as scythe-engine lets one include it."""
    if spec.mode == "raise":
        raise ValueError(f"plain {spec.x}")
    return Done(y=3 * spec.x, anything=os.getpid(), dataframes={"t": pd.DataFrame({"a": [spec.x]})})


two_steps = hatchet.workflow(name="two_steps", input_validator=Work)
ExperimentRegistry.Include(two_steps)


@two_steps.task()
def first(spec: Work, context: Context) -> dict[str, float]:
    """The first step."""
    return {"y": spec.x + 1}


@two_steps.task(parents=[first])
def second(spec: Work, context: Context) -> dict[str, float]:
    """The second step."""
    return {"y": context.task_output(first)["y"] * 10}


if __name__ == "__main__":
    ScytheWorkerConfig().start(additional_workflows=[two_steps])
