"""The whole example in one command: local stack, worker with a local Ray, study, results.

The local stack goes on afterwards, as after `scythe dev`; the worker and its Ray do not.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, timedelta
from types import FrameType
from typing import Any

import allocate
from designs import make_designs
from worker_process import WorkerError, WorkerProcess

from scythe.environment import token_is_given
from scythe.errors import ScytheError
from scythe.experiments import ExperimentRun
from scythe.hatchet import hatchet
from scythe.stack import running, up

INTERRUPTED = 130
CANCEL_LIMIT = 20.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit code."""
    options = allocate.parse(arguments, __doc__)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return demo(options)
    except (ScytheError, WorkerError) as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo.py: interrupted; of the worker nothing is left.", file=sys.stderr)
        return INTERRUPTED


def demo(options: argparse.Namespace) -> int:
    """Run the study with a worker of its own, on the local stack or on the user's Hatchet."""
    began = time.monotonic()
    on_local_stack = not token_is_given()
    if on_local_stack:
        ensure_stack()
    code = study(options)
    say(f"Done after {time.monotonic() - began:.0f} s.")
    if on_local_stack:
        say("The local stack goes on: `scythe dev status` shows it, `scythe dev stop` stops it.")
    return code


def ensure_stack() -> None:
    """Start the local stack, or what of it does not run."""
    found = running()
    if found is None:
        say("No local stack runs: starting one, as `scythe dev` does.")
        say("The first time ever this builds the Hatchet engine, which takes about 3 minutes.")
    else:
        say(f"The local stack runs ({found.home}).")
    up(report=say)


def study(options: argparse.Namespace) -> int:
    """Start a worker, run the study, and end the worker.

    Returns:
        The exit code.
    """
    run = None
    log = options.out / "worker.log"
    say(f"Starting a worker with executor ray. Its log: {log}")
    try:
        with WorkerProcess(log) as worker:
            worker.start()
            worker.wait_until_ready()
            print(worker.output().rstrip(), flush=True)
            run = allocate.start(make_designs(options.designs, options.weather))
            code = wait(run, options, worker)
            say("Stopping the worker.")
    except (KeyboardInterrupt, WorkerError):
        if run is not None:
            cancel_for_sure(run)
        raise
    return code


def wait(run: ExperimentRun, options: argparse.Namespace, worker: WorkerProcess) -> int:
    """Wait for the run, or for the end of the worker."""
    try:
        return allocate.finish(run, options.weather, options.out)
    except KeyboardInterrupt:
        say("Cancelling the run.")
        cancel(run)  # first of all, or the worker would wait for its scatter node
        worker.check()
        raise


def cancel(run: ExperimentRun) -> None:
    """Ask Hatchet to cancel what is left of a run."""
    from hatchet_sdk.features.runs import BulkCancelReplayOpts, RunFilter

    hatchet.runs.bulk_cancel(BulkCancelReplayOpts(filters=RunFilter(**what_is_left(run))))


def cancel_for_sure(run: ExperimentRun) -> None:
    """Cancel until nothing is left, or its leaves would wait for the next worker."""
    deadline = time.monotonic() + CANCEL_LIMIT
    while hatchet.runs.list(**what_is_left(run), only_tasks=True, limit=1).rows:
        if time.monotonic() > deadline:
            say("Hatchet has not cancelled all of it: the next worker gets what is left.")
            return
        cancel(run)
        time.sleep(0.5)


def what_is_left(run: ExperimentRun) -> dict[str, Any]:
    """Return the filter for all tasks of a run that are not over."""
    from hatchet_sdk import V1TaskStatus

    return {
        "since": run.timestamp.replace(tzinfo=UTC) - timedelta(minutes=1),
        "statuses": [V1TaskStatus.QUEUED, V1TaskStatus.RUNNING],
        "additional_metadata": {"experiment_id": run.experiment_id},
    }


def say(line: str) -> None:
    """Print a line about the demo itself."""
    print(f"demo: {line}", flush=True)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGHUP:  # the terminal is gone: what is printed must not fail
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
