"""Two nodes with a worker on each: Ray on one of them is broken, drained, or cut off."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.running import wait_until
from tests.chaos.bed import Bed
from tests.chaos.nodes import Node
from tests.chaos.report import Report
from tests.chaos.runs import TracedRun

LEAVES = 80
RAY = ("--num-cpus=1",)


@dataclass(frozen=True)
class Pair:
    """The head, and the node that is broken."""

    bed: Bed
    head: Node
    other: Node


@pytest.fixture(scope="module")
def pair(services: dict[str, str]) -> Generator[Pair]:
    with Bed(services) as bed:
        head, other = bed.add("a"), bed.add("b")
        head.start_ray(*RAY)
        other.start_ray(*RAY, head=head)
        workers = [head.start_worker(), other.start_worker(SCYTHE_WORKER_DOES_FAN="false")]
        for worker in workers:
            worker.wait_ready()
        yield Pair(bed, head, other)
        for worker in workers:
            worker.stop()


def kill_the_raylet(pair: Pair) -> None:
    """Kill the raylet of a node. Ray there ends with it, and is started again."""
    pair.other.program("raylet").kill()
    _start_again(pair)


def drain(pair: Pair) -> None:
    """Drain a node, as before it is taken away; then it is given back."""
    command = ["drain-node", f"--address={pair.head.address}:6379"]
    command += [f"--node-id={pair.other.ray_id()}", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message=chaos", "--deadline-remaining-seconds=5"]
    process = pair.head.start(str(Path(sys.executable).with_name("ray")), *command, log="drain.log")
    assert process.wait(60) == 0
    wait_until(lambda: not pair.other.has("raylet"), "the drained raylet has ended", 60)
    pair.other.end_ray()  # which does not end with a raylet that left in an orderly way
    _start_again(pair)


def cut(pair: Pair) -> None:
    """Pull a node's network cable for 40 s."""
    pair.other.cut()
    time.sleep(40)  # the fault itself
    pair.other.restore()
    _start_again(pair)


def _start_again(pair: Pair) -> None:
    """Start Ray on the node once it has ended there, as a service manager does."""
    assert pair.other.ray is not None
    try:
        pair.other.ray.wait(90)
    except subprocess.TimeoutExpired:
        pytest.fail("Ray on the node has not ended")
    pair.other.start_ray(*RAY, head=pair.head)


FAULTS: dict[str, Callable[[Pair], None]] = {
    "raylet killed, started again": kill_the_raylet,
    "node drained, given back": drain,
    "node cut off for 40 s": cut,
}


@pytest.mark.parametrize("case", FAULTS)
def test_every_leaf_ends_exactly_once(
    case: str, pair: Pair, tmp_path: Path, report: Report
) -> None:
    from tests.chaos.app.main import plain

    run = TracedRun(plain, tmp_path, LEAVES)
    run.wait_ended(LEAVES // 4)
    pair.other.wait_leaf()
    run.survives(case, lambda: FAULTS[case](pair), pair.bed, report)
