"""One node with two CPUs, a leaf worker and a fan worker; one thing after the other is broken."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scythe.stack.paths import ENGINE, POSTGRES, layout_of
from scythe.stack.state import read_state
from tests.acceptance.running import wait_until
from tests.chaos.bed import Bed
from tests.chaos.forward import NO_ROOM, SILENCE, SLOW_DOWN
from tests.chaos.nodes import Node, Worker
from tests.chaos.report import Report
from tests.chaos.runs import TracedRun

LEAVES = 60
S3 = "S3 answers 503 for 60 s"
RAY = ("--num-cpus=2",)


@dataclass(frozen=True)
class Place:
    """The processes that the tests break."""

    bed: Bed
    node: Node
    leaf: Worker
    fan: Worker
    stack: Path


@pytest.fixture(scope="module")
def place(services: dict[str, str], stack_home: Path) -> Generator[Place]:
    with Bed(services) as bed:
        node = bed.add("a")
        node.start_ray(*RAY)
        leaf = node.start_worker("leaf.log", SCYTHE_WORKER_DOES_FAN="false")
        fan = node.start_worker("fan.log", SCYTHE_WORKER_DOES_LEAF="false")
        leaf.wait_ready()
        fan.wait_ready()
        yield Place(bed, node, leaf, fan, stack_home)
        leaf.stop()
        fan.stop()
        left = [path.name for path in (node.folder / "tmp").glob("scythe-*")]
        assert left == []


def a_ray_worker(place: Place) -> None:
    """Kill the process of a leaf."""
    place.node.wait_leaf().kill()


def the_driver(place: Place) -> None:
    """Kill the leaf part: Ray's driver. The worker starts it again."""
    place.leaf.part("leaf").kill()


def the_leaf_worker(place: Place) -> None:
    """Kill all of the leaf worker, which is started again as by a service manager."""
    place.leaf.kill()
    place.leaf.start_again()


def the_fan_worker(place: Place) -> None:
    """Kill all of the fan worker, which is started again as by a service manager."""
    place.fan.kill()
    place.fan.start_again()


def the_head(place: Place) -> None:
    """Kill the head's server. Ray on the node ends with it, and is started again."""
    place.node.program("gcs_server").kill()
    assert place.node.ray is not None
    place.node.ray.wait(60)
    place.node.start_ray(*RAY)


def the_engine(place: Place) -> None:
    """Kill the engine, and start it again."""
    _restart(place.stack, ENGINE)


def the_database(place: Place) -> None:
    """Kill PostgreSQL, and start it again."""
    _restart(place.stack, POSTGRES)


def s3_for_a_minute(place: Place) -> None:
    """Answer each request to S3 with an error for 60 s."""
    _fail_s3(place, 60)


def s3_that_hangs(place: Place) -> None:
    """Take each request to S3 and answer none for 60 s."""
    _fail_s3(place, 60, SILENCE)


def s3_that_is_full(place: Place) -> None:
    """Say of each request to S3 that there is no room, for longer than a store may be away."""
    _fail_s3(place, 150, NO_ROOM)


def _fail_s3(place: Place, seconds: float, answer: str = SLOW_DOWN) -> None:
    place.bed.fail_s3(answer)
    time.sleep(seconds)  # the fault itself
    place.bed.heal_s3()


def a_poisoned_process(place: Place) -> None:
    """Let leaves of another run damage the processes that they share with these."""
    from tests.chaos.app.main import poison

    TracedRun(poison, place.bed.folder, 4).wait_over(120, "done")


def the_clock(place: Place) -> None:
    """Put the wall clock of the node forward, as far as processes there can tell."""
    step = 's/^btime \\(.*\\)$/echo "btime $((\\1 + 10))"/e'
    copy = f"sed '{step}' /proc/stat > {place.node.folder}/stat"
    mount = f"mount --bind {place.node.folder}/stat /proc/stat"
    assert place.node.start("sh", "-c", f"{copy} && {mount}", log="clock.log").wait(20) == 0


def the_leaf_part_stops(place: Place) -> None:
    """Stop the leaf part for a while, as a suspended machine does, and let it go on."""
    part = place.leaf.part("leaf")
    part.suspend()
    time.sleep(20)  # the fault itself
    part.resume()


def _restart(home: Path, part: str) -> None:
    from scythe.stack import up

    state = read_state(layout_of(home))
    assert state is not None
    process = state.parts[part]
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_alive(), f"{part} is dead", 20)
    up(home)


FAULTS: dict[str, Callable[[Place], None]] = {
    "Ray worker process killed": a_ray_worker,
    "driver (leaf part) killed": the_driver,
    "leaves damage their process": a_poisoned_process,
    "leaf part stopped for 20 s": the_leaf_part_stops,
    "wall clock stepped by 10 s": the_clock,
    "leaf worker killed, started again": the_leaf_worker,
    "fan worker killed, started again": the_fan_worker,
    "Ray head (GCS) killed, started again": the_head,
    "engine killed, started again": the_engine,
    "PostgreSQL killed, started again": the_database,
    S3: s3_for_a_minute,
    "S3 hangs for 60 s": s3_that_hangs,
    "S3 is full for 150 s": s3_that_is_full,
}


@pytest.mark.parametrize("case", FAULTS)
def test_every_leaf_ends_exactly_once(
    case: str, place: Place, tmp_path: Path, report: Report
) -> None:
    from tests.chaos.app.main import plain

    run = TracedRun(plain, tmp_path, LEAVES)
    run.wait_ended(LEAVES // 3)
    run.survives(case, lambda: FAULTS[case](place), place.bed, report)
