"""Experiments for the tests of the local pool; imported by its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

LONG = 600


class Task(ExperimentInputSpec):
    folder: str = ""
    how: str = ""


class Text(ExperimentOutputSpec):
    text: str = ""


@ExperimentRegistry.Register()
def pid(spec: Task) -> Text:
    return Text(text=str(os.getpid()))


@ExperimentRegistry.Register()
def interval(spec: Task) -> Text:
    """Says when it ran, by a clock that all processes share."""
    began = time.monotonic()
    time.sleep(0.3)
    return Text(text=json.dumps([began, time.monotonic()]))


@ExperimentRegistry.Register()
def meets(spec: Task) -> Text:
    """Waits for another leaf that runs at the same time."""
    Path(spec.folder, f"met{spec.sort_index}").write_text("x")
    deadline = time.monotonic() + 30
    while len(list(Path(spec.folder).glob("met*"))) < 2:
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.01)
    return Text()


@ExperimentRegistry.Register()
def modules(spec: Task) -> Text:
    return Text(text=" ".join({name.partition(".")[0] for name in sys.modules}))


@ExperimentRegistry.Register()
def tidies_up(spec: Task) -> Text:
    """Is interrupted, and says so in its `finally`."""
    with tempfile.TemporaryDirectory(dir=spec.folder, prefix="own-"):
        try:
            Path(spec.folder, "started").write_text(str(os.getpid()))
            time.sleep(LONG)
        finally:
            Path(spec.folder, "tidied").write_text("x")
    return Text()


@ExperimentRegistry.Register()
def is_killed(spec: Task) -> Text:
    """Its process is killed, the first time or every time."""
    mark = Path(spec.folder, "been here")
    seen = mark.exists()
    mark.write_text("x")
    with Path(spec.folder, "tries").open("a") as file:
        file.write("x")
    number, _, when = spec.how.partition(" ")
    if when == "always" or not seen:
        os.kill(os.getpid(), getattr(signal, number))
        time.sleep(LONG)
    return Text(text="done")


@ExperimentRegistry.Register()
def leaves_children(spec: Task) -> Text:
    """Leaves a child, one in its own session and an orphan's orphan."""
    child = subprocess.Popen(["sleep", str(LONG)])
    own = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
    orphan = subprocess.run(
        ["sh", "-c", f"setsid sleep {LONG} >/dev/null 2>&1 & echo $!"],
        capture_output=True,
        check=True,
    )
    Path(spec.folder, "children").write_text(f"{child.pid} {own.pid} {int(orphan.stdout)}")
    return Text(text=str(os.getpid()))


@ExperimentRegistry.Register()
def crashes_with_children(spec: Task) -> Text:
    """Leaves a program in a session of its own, then ends its process."""
    child = subprocess.Popen(["sleep", str(LONG)], start_new_session=True)
    Path(spec.folder, "children").write_text(str(child.pid))
    os._exit(3)


@ExperimentRegistry.Register()
def closes_everything(spec: Task) -> Text:
    """Closes the channel to the worker, as code that makes a daemon of itself does."""
    os.closerange(3, 256)
    return Text()
