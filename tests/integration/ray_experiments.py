"""The experiments of the tests with Ray."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry


class Task(ExperimentInputSpec):
    how: str = ""
    folder: str = ""


class Text(ExperimentOutputSpec):
    text: str = ""


@ExperimentRegistry.Register(name="ray-where")
def where(spec: Task, tempdir: Path) -> Text:
    """Say where the leaf runs, and do what the test asks for."""
    import ray

    print("to do:", spec.how)
    if spec.how == "crash":
        ctypes.string_at(0)
    if spec.how == "fail":
        raise ValueError("as it was told to")
    if spec.how.startswith("meet "):  # be there at the same time as others
        Path(spec.folder, str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while len(list(Path(spec.folder).iterdir())) < int(spec.how.removeprefix("meet ")):
            assert time.monotonic() < deadline, "the others do not come"
            time.sleep(0.01)
    if spec.how == "hang":
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        pids = {"leaf": os.getpid(), "child": child.pid}
        part = Path(spec.folder, f"{spec.sort_index}.part")
        part.write_text(json.dumps(pids))
        part.rename(part.with_suffix(".json"))
        time.sleep(600)
    found = {
        "node": ray.get_runtime_context().get_node_id(),
        "hatchet": "hatchet_sdk" in sys.modules,
        "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "nice": os.nice(0),
        "cwd": str(Path.cwd()),
        "tempdir": str(tempdir),
    }
    return Text(text=json.dumps(found))
