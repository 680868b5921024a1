"""Leaves that leave a trace each time they run, and the worker that runs them."""

from __future__ import annotations

import json
import os
import pickle
import platform
import resource
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry
from scythe.utils.filesys import FileReference
from scythe.worker import ScytheWorkerConfig, ScytheWorkerLabel

TAG = os.environ["CHAOS_TAG"]  # the session's: what an earlier one has left waits for nobody


class TracedInput(ExperimentInputSpec):
    trace: str  # a file of the host
    seconds: float = 0.2
    gigabytes: float = 0.0
    is_poison: bool = False


class TracedOutput(ExperimentOutputSpec):
    node: str
    note: FileReference


def _run(spec: TracedInput, tempdir: Path) -> TracedOutput:
    _write(spec, "began")
    if spec.is_poison:
        _kill_worker_process()
    child = subprocess.Popen(["sleep", "600"])  # it may not outlive a leaf that is killed
    try:
        ballast = [bytearray(os.urandom(1024)) * 1024 * 64 for _ in range(int(spec.gigabytes * 16))]
        time.sleep(spec.seconds)
        del ballast
    finally:
        child.kill()
        child.wait()
    note = tempdir / "note.txt"
    note.write_text(f"{spec.sort_index}")
    _write(spec, "ended")
    return TracedOutput(node=platform.node(), note=note)


def _kill_worker_process() -> None:
    """Kill the child of `python main.py` in which this leaf runs, with the executor `local`."""
    deadline = time.monotonic() + 600  # it is killed with that process, or was orphaned before
    while time.monotonic() < deadline:
        with suppress(psutil.Error, StopIteration):
            ancestors = psutil.Process().parents()
            main = next(n for n, one in enumerate(ancestors) if one.cmdline()[-1:] == ["main.py"])
            ancestors[main - 1].kill()
        time.sleep(0.1)


def _write(spec: TracedInput, what: str) -> None:
    line = f"{spec.sort_index} {what} {time.time()} {platform.node()}\n"
    descriptor = os.open(spec.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())  # in one piece, whoever else writes
    finally:
        os.close(descriptor)


@ExperimentRegistry.Register(name=f"chaos_plain_{TAG}", retries=2, execution_timeout="5m")
def plain(input_spec: TracedInput, tempdir: Path) -> TracedOutput:
    return _run(input_spec, tempdir)


@ExperimentRegistry.Register(
    name=f"chaos_on_gpu_{TAG}",
    retries=2,
    execution_timeout="5m",
    desired_worker_labels=ScytheWorkerLabel.HAS_GPU.worker_label,
)
def on_gpu(input_spec: TracedInput, tempdir: Path) -> TracedOutput:
    return _run(input_spec, tempdir)


@ExperimentRegistry.Register(name=f"chaos_poison_{TAG}", execution_timeout="5m")
def poison(input_spec: TracedInput, tempdir: Path) -> TracedOutput:
    """Leaves its process unfit for any other leaf."""
    output = _run(input_spec, tempdir)
    setattr(json, "dumps", None)  # noqa: B010 - it is no mistake
    setattr(pickle, "dumps", None)  # noqa: B010
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    shutil.rmtree(tempdir.parent)
    return output


if __name__ == "__main__":
    ScytheWorkerConfig(executor=os.environ.get("CHAOS_EXECUTOR", "ray")).start()
