"""Real Ray clusters: one of two nodes that is attached to, and those that workers start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

pytest.importorskip("ray")

from scythe.errors import ExecutorError, ExecutorUnavailable, LeafFailed, WorkerStartError
from scythe.executor import ExecutorRequest
from scythe.locate import code_ref
from scythe.outcomes import FailureKind, LeafCall, LeafResources, StoreConfig
from scythe.specs.codec import encode_spec
from scythe_ray.cluster import driver as scythe_ray_driver
from scythe_ray.cluster.discovery import answers, gcs_client, raylets_here
from scythe_ray.executor import RayExecutor
from scythe_ray.on_node import task as remote
from scythe_ray.plugin import open_executor
from scythe_ray.submit import node_agent_client as scythe_ray_controls
from tests.ray_bed import RayBed, ray_bed

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import ray_experiments  # noqa: E402

T = TypeVar("T")
LICENSE = LeafResources(custom={"license": 1})
PREEMPTION = 2  # in Ray's DrainNodeReason
NUM_GPUS = "SCYTHE_RAY_NUM_GPUS"
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@dataclass(frozen=True)
class Nodes:
    """A cluster that this process did not start."""

    bed: RayBed
    other: str  # the node that is not the head

    @property
    def address(self) -> str:
        return self.bed.address

    @property
    def token(self) -> Path:
        """The file with the cluster's token."""
        return self.bed.token

    def add(self, resource: str) -> str:
        """Add a node that has this resource; return its id."""
        return self.bed.add(num_cpus=1, resources={resource: 1})


def kill_node(node_id: str) -> None:
    for process in psutil.process_iter(["name", "cmdline"]):
        line = process.info["cmdline"] or []
        if process.info["name"] == "raylet" and any(node_id in part for part in line):
            process.kill()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_bed(num_cpus=2, resources={"high_memory": 2}) as bed:
        yield Nodes(bed, bed.add(num_cpus=1, num_gpus=1, resources={"license": 1}))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("SCYTHE_RAY_", "RAY_")):
            monkeypatch.delenv(name)


@pytest.fixture
def attached(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    for name, value in nodes.bed.environment.items():
        monkeypatch.setenv(name, value)
    return nodes


@contextmanager
def opened(**request: Any) -> Iterator[Harness]:
    executor = open_executor(ExecutorRequest(**request))
    with asyncio.Runner() as runner:
        try:
            yield Harness(executor, runner)
        finally:
            runner.run(executor.aclose())


@dataclass(frozen=True)
class Harness:
    executor: RayExecutor
    runner: asyncio.Runner

    def do(self, work: Coroutine[Any, Any, T], within: float = 60.0) -> T:
        async def limited() -> T:
            async with asyncio.timeout(within):
                return await work

        return self.runner.run(limited())

    def where(self, **options: Any) -> dict[str, Any]:
        result = self.do(self.executor.run(call(**options)))
        return json.loads(json.loads(result.scalars)["text"])


def call(
    how: str = "", folder: Path | str = "", number: int = 0, timeout: float = 60.0, **more: Any
) -> LeafCall:
    spec = ray_experiments.Task(
        experiment_id="ray/v1.0.0/now", sort_index=number, how=how, folder=str(folder)
    )
    return LeafCall(
        leaf_id=f"{number:08d}-{uuid.uuid4().hex[:8]}",
        code=code_ref(ray_experiments.where),
        spec=encode_spec(spec),
        experiment_id="ray/v1.0.0/now",
        store=StoreConfig(bucket="none"),
        timeout=timeout,
        **more,
    )


async def announced(folder: Path, number: int = 0) -> dict[str, int]:
    file = folder / f"{number}.json"
    async with asyncio.timeout(60):
        while not file.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    return json.loads(file.read_text())


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- attaching -----------------------------------------------------------------------------------


def test_a_node_of_a_running_cluster(
    attached: Nodes,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", "scythe.ray"), opened() as harness:
        capacity = harness.executor.capacity
        assert (capacity.slots, capacity.source) == (2, "2 CPUs that Ray reports for this node")
        assert capacity.labels == {"high_memory": "yes"}
        assert capacity.place.endswith(f"at {attached.address}, attached")
        assert "2 node(s), 3 CPU, 1 GPU, 2 high_memory, 1 license" in caplog.text
        assert "Leaves of this worker run on this node" in caplog.text

        found = harness.where(labels={"high_memory": "yes"})
        assert found["node"] != attached.other
        assert found["cuda"] == ""  # the other node has a GPU; this leaf asked for none
        assert found["hatchet"] is False
        assert found["cwd"] == str(tmp_path)  # the cluster was started elsewhere
        # What this node does not have is looked for on the others.
        result = harness.do(harness.executor.run(call(labels={"has_gpu": "yes"})))
        found = json.loads(json.loads(result.scalars)["text"])
        assert (found["node"], found["cuda"]) == (attached.other, "0")
        assert result.stats.gpus == "0"
    assert answers(attached.address)  # it is not shut down with the worker
    assert "RAY_AUTH_MODE" not in os.environ


def test_leaves_on_another_node_are_ended_and_explained(attached: Nodes, tmp_path: Path) -> None:
    """Through the control actor there: this process may not be on its machine."""
    with opened() as harness:

        async def cancel() -> tuple[dict[str, int], float]:
            hangs = call("hang", tmp_path, 1, resources=LICENSE)
            task = asyncio.ensure_future(harness.executor.run(hangs))
            pids = await announced(tmp_path, 1)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return pids, time.monotonic() - began

        pids, seconds = harness.do(cancel())
        assert not [name for name, pid in pids.items() if is_alive(pid)]
        assert seconds < 10

        hangs = call("hang", tmp_path, 2, timeout=0.5, resources=LICENSE)
        with pytest.raises(LeafFailed) as caught:
            harness.do(harness.executor.run(hangs))
        assert caught.value.failure.kind is FailureKind.TIMEOUT
        assert "in where" in caught.value.failure.traceback
        assert caught.value.failure.log == "to do: hang\n"
        pids = json.loads((tmp_path / "2.json").read_text())
        assert not [name for name, pid in pids.items() if is_alive(pid)]

        with pytest.raises(LeafFailed) as caught:
            harness.do(harness.executor.run(call("crash", resources=LICENSE)))
        assert caught.value.failure.type == "Segmentation fault"
        assert "in where" in caught.value.failure.traceback
        assert caught.value.failure.log.startswith("to do: crash\n")  # Ray writes more


async def until(condition: Callable[[], bool], within: float = 40.0) -> None:
    async with asyncio.timeout(within):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - others bring it about
            await asyncio.sleep(0.1)


@contextmanager
def hanging(head: psutil.Process) -> Iterator[None]:
    """Stop a head meanwhile; after a minute it goes on, since this thread may hang with it."""
    saved = threading.Timer(60.0, head.resume)
    saved.start()
    head.suspend()
    try:
        yield
        assert head.status() == psutil.STATUS_STOPPED
    finally:
        saved.cancel()
        head.resume()


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which each actor that ends leaves on another node adds what it was told."""
    file = tmp_path / "told"

    class NodeAgentActor(remote.NodeAgentActor):
        def __init__(self, driver: bytes, kills: int | None) -> None:
            super().__init__(driver, kills)
            with file.open("a") as lines:
                lines.write(f"{kills}\n")

    monkeypatch.setattr(scythe_ray_controls, "NodeAgentActor", NodeAgentActor)
    return file


def test_a_worker_that_stops_while_its_cluster_is_lost_cleans_up_all_the_same(
    attached: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can ask nothing of other nodes, nor end its actor on one that died just before."""
    monkeypatch.setattr(scythe_ray_controls, "_UNUSED", 60.0)
    needs_tape = LeafResources(custom={"tape": 1}, fresh_process=True)
    node = attached.add("tape")
    with opened() as harness:
        here = Path(harness.where()["tempdir"]).parent
        assert harness.where(resources=needs_tape)["node"] == node
        attached.bed.kill(node)

        with pytest.raises(ExecutorUnavailable):  # it is missed
            harness.do(harness.executor.run(call(resources=needs_tape)))
        assert here.exists()
        assert harness.executor.cluster.leave()
    assert not here.exists()
    assert "RAY_AUTH_MODE" not in os.environ


def test_a_worker_stops_in_time_although_the_head_of_its_nodes_hangs(
    attached: Nodes, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To end leaves on another node it would start an actor there; Ray asks the head about it."""
    monkeypatch.setattr(scythe_ray_controls, "_CLOSE_TIMEOUT", 2.0)
    monkeypatch.setattr(scythe_ray_controls, "_UNUSED", 0.1)
    monkeypatch.setattr(scythe_ray_driver, "_LEAVE_TIMEOUT", 2.0)
    (head,) = (
        process
        for process in psutil.process_iter(["name", "environ"])
        if process.info["name"] == "gcs_server"
        and any(str(attached.token) in part for part in (process.info["environ"] or {}).values())
    )
    with ExitStack() as until_it_has_left:
        until_it_has_left.callback(lambda: asyncio.run(until(scythe_ray_driver.leave, 60.0)))
        with opened() as harness:
            harness.do(harness.executor.run(call(resources=LICENSE)))
            harness.do(until(told.exists, 60.0))
            harness.do(until(lambda: not has_control(attached), 60.0))
            until_it_has_left.enter_context(hanging(head))


def test_the_whole_cluster_is_one_worker(attached: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_RAY_SCOPE", "cluster")
    monkeypatch.setenv("SCYTHE_RAY_PREFETCH", "2")
    with opened(labels={"has_gpu": "yes"}) as harness:
        capacity = harness.executor.capacity
        assert capacity.slots == 3 + 2
        assert "3 CPUs that Ray reports for 2 nodes" in capacity.source
        assert capacity.labels == {"has_gpu": "yes", "high_memory": "yes"}
        with pytest.raises(ExecutorUnavailable) as caught:
            # The cluster has 3 CPUs, but no node has.
            harness.do(harness.executor.run(call(resources=LeafResources(cpus=3))), within=5)
        assert caught.value.failure.kind is FailureKind.INFEASIBLE
        assert "needs 3 CPU" in caught.value.failure.message


def test_nodes_that_come_and_go(
    attached: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_RAY_SCOPE", "cluster")
    needs_disk = LeafResources(custom={"disk": 1})

    async def scenario(executor: RayExecutor) -> None:
        await executor.astart()
        with pytest.raises(ExecutorUnavailable) as caught:
            await executor.run(call(resources=needs_disk))
        assert caught.value.failure.kind is FailureKind.INFEASIBLE

        async def offers(slots: int, label: str | None) -> None:
            async with asyncio.timeout(20):
                while True:
                    capacity = executor.capacity
                    if (capacity.slots, capacity.labels.get("high_cpu")) == (slots, label):
                        return
                    await asyncio.sleep(0.05)

        added = {"num_cpus": 2, "resources": {"high_cpu": 2, "disk": 1}, "labels": {"pool": "new"}}
        node = await asyncio.to_thread(attached.bed.add, **added)
        await offers(5, "yes")
        # Ray's labels are the worker's too; a leaf that requires one, or selects it, goes there.
        assert executor.capacity.labels["pool"] == "new"
        selecting = LeafResources(node_labels={"pool": "in(old,new)"})
        for leaf in (call(labels={"pool": "new"}), call(resources=selecting)):
            found = json.loads(json.loads((await executor.run(leaf)).scalars)["text"])
            assert found["node"] == node
        with pytest.raises(ExecutorUnavailable) as caught:
            await executor.run(call(resources=LeafResources(node_labels={"pool": "old"})))
        assert "has no label pool=old" in caught.value.failure.message
        running = asyncio.ensure_future(
            executor.run(call("hang", tmp_path, 1, resources=needs_disk))
        )
        await announced(tmp_path, 1)
        await asyncio.to_thread(attached.bed.kill, node)
        await offers(3, "no")
        # Not for ever impossible: a worker that has the resource may take it.
        with pytest.raises(ExecutorUnavailable) as caught:
            await running
        assert caught.value.failure.kind is FailureKind.NODE_LOST
        assert not caught.value.failure.kind.is_final
        assert len((await executor.run(call())).scalars) > 0

    with opened() as harness:
        harness.do(scenario(harness.executor), within=120)


def test_a_leaf_that_waits_runs_on_a_node_that_joins(
    attached: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is watched there too."""
    monkeypatch.setenv("SCYTHE_RAY_SCOPE", "cluster")

    async def scenario(executor: RayExecutor) -> None:
        first = asyncio.ensure_future(executor.run(call("hang", tmp_path, 3, resources=LICENSE)))
        await announced(tmp_path, 3)
        second = asyncio.ensure_future(
            executor.run(call("hang", tmp_path, 4, resources=LICENSE, timeout=1.0))
        )
        node = await asyncio.to_thread(attached.bed.add, num_cpus=1, resources={"license": 1})
        with pytest.raises(LeafFailed) as caught:
            await second
        assert caught.value.failure.kind is FailureKind.TIMEOUT
        assert "longer than its limit of 1 s" in caught.value.failure.message
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await asyncio.to_thread(attached.bed.kill, node)

    with opened() as harness:
        harness.do(scenario(harness.executor), within=120)


def tapes_demanded(cluster: Nodes) -> set[float]:
    """Return how many tapes leaves wait for, as the autoscaler sees it."""
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    state = get_cluster_resource_state(gcs_client(cluster.address))
    waiting = [one.request.resources_bundle for one in state.pending_resource_requests if one.count]
    return {amount for bundle in waiting if (amount := bundle.get("tape", 0.0))}


def test_a_leaf_waits_for_a_node_that_the_autoscaler_may_start(
    attached: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_RAY_AUTOSCALING", '[{"CPU": 1, "tape": 2}]')

    async def scenario(executor: RayExecutor) -> None:
        with pytest.raises(ExecutorUnavailable) as caught:
            await executor.run(call(resources=LeafResources(custom={"tape": 3})))
        assert "a node that the autoscaler starts (not there yet), has only 2 tape" in (
            caught.value.failure.message
        )
        waits = asyncio.ensure_future(
            executor.run(call(resources=LeafResources(custom={"tape": 2})))
        )
        given_up = asyncio.ensure_future(
            executor.run(call(resources=LeafResources(custom={"tape": 1})))
        )
        async with asyncio.timeout(30):
            while await asyncio.to_thread(tapes_demanded, attached) != {1.0, 2.0}:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            # No node is started for a leaf that nobody waits for any more.
            while await asyncio.to_thread(tapes_demanded, attached) != {2.0}:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        node = await asyncio.to_thread(attached.bed.add, num_cpus=1, resources={"tape": 2})
        found = json.loads(json.loads((await waits).scalars)["text"])
        assert found["node"] == node
        await asyncio.to_thread(attached.bed.kill, node)

    with opened() as harness:
        harness.do(scenario(harness.executor), within=120)


def is_idle(cluster: Nodes) -> bool:
    """Return whether an autoscaler would take the other node away."""
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    nodes = get_cluster_resource_state(gcs_client(cluster.address)).node_states
    return any(n.node_id.hex() == cluster.other and n.idle_duration_ms > 0 for n in nodes)


def has_control(cluster: Nodes) -> bool:
    """Return whether the other node has an actor that ends leaves."""
    found = psutil.process_iter(
        ["name", "cmdline", "pid", "ppid"]
    )  # what ends meanwhile is left out
    lines = [(one.info, " ".join(one.info["cmdline"] or [])) for one in found]
    raylets = [
        info["pid"] for info, line in lines if info["name"] == "raylet" and cluster.other in line
    ]
    return any("ray::NodeAgentActor" in line and info["ppid"] in raylets for info, line in lines)


def test_a_node_whose_leaves_are_over_is_idle_to_the_autoscaler(
    attached: Nodes, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor that ends leaves there does not stay, and is there again when it is needed."""
    monkeypatch.setattr(scythe_ray_controls, "_UNUSED", 1.0)
    monkeypatch.setattr(scythe_ray_controls, "_CLOSE_TIMEOUT", 60.0)  # of a busy machine

    async def scenario(executor: RayExecutor) -> None:
        hangs = call("hang", tmp_path, 1, resources=LICENSE)
        task = asyncio.ensure_future(executor.run(hangs))
        pids = await announced(tmp_path, 1)
        await until(lambda: not is_idle(attached), 60.0)
        await until(told.exists, 60.0)
        await until(lambda: not has_control(attached), 60.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [name for name, pid in pids.items() if is_alive(pid)]
        await until(lambda: is_idle(attached) and not has_control(attached), 60.0)
        await executor.run(call(resources=LICENSE))
        assert not has_control(attached)  # leaves that end well need none

    with opened() as harness:
        harness.do(scenario(harness.executor), within=200)
        session = Path(harness.executor.cluster.session_dir)
        assert list(session.glob("scythe-*"))
    left = list(session.glob("scythe-*")) + list(session.glob("scythe-*/*"))
    assert not left  # also what was left where the actor had ended
    first, *others = told.read_text().split()
    assert first == "None"
    assert len(others) >= 2
    assert all(other.isdecimal() for other in others)  # each knows what the one before it counted


def test_a_leaf_that_ray_has_no_room_for_in_time(attached: Nodes, tmp_path: Path) -> None:
    with opened() as harness:

        async def wait_in_vain() -> ExecutorError:
            first = [call("hang", tmp_path, number) for number in range(2)]
            tasks = [asyncio.ensure_future(harness.executor.run(one)) for one in first]
            for number in range(2):
                await announced(tmp_path, number)
            with pytest.raises(ExecutorUnavailable) as caught:
                await harness.executor.run(call("hang", tmp_path, 9, schedule_timeout=0.5))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return caught.value

        failure = harness.do(wait_in_vain()).failure
        assert (failure.kind, failure.type) == (FailureKind.TIMEOUT, "ScheduleTimeout")
        harness.where()
        assert not (tmp_path / "9.json").exists()


def test_a_flag_that_this_node_does_not_back(attached: Nodes) -> None:
    with pytest.raises(WorkerStartError, match="`has_gpu`.*`GPU`.*ray start --num-gpus=1"):
        open_executor(ExecutorRequest(labels={"has_gpu": "yes"}))
    with opened():  # nothing is left of the failed attempt
        pass


def test_a_wrong_token_is_said_at_once(
    attached: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("f" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    began = time.monotonic()
    with pytest.raises(WorkerStartError, match="refuses this worker's authentication token"):
        open_executor(ExecutorRequest())
    assert time.monotonic() - began < 10


def test_another_version_is_said_at_once(attached: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.__version__", "2.1.0")
    with pytest.raises(WorkerStartError, match=r"runs Ray .*this worker has 2\.1\.0"):
        open_executor(ExecutorRequest())


def test_a_port_that_is_not_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("SCYTHE_RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("SCYTHE_RAY_CONNECT_TIMEOUT", "1s")
        began = time.monotonic()
        with pytest.raises(WorkerStartError, match="does not answer as a Ray head"):
            open_executor(ExecutorRequest())
        assert time.monotonic() - began < 15


KILLED = """
import asyncio, sys
from scythe.executor import ExecutorRequest
from scythe.outcomes import LeafResources
from scythe_ray.plugin import open_executor
from tests.integration.test_ray_cluster import call

async def run():
    license = LeafResources(custom={"license": 1})
    await executor.run(call("hang", sys.argv[1], 1, resources=license))

executor = open_executor(ExecutorRequest())
asyncio.run(run())
"""


def test_a_worker_that_is_killed_leaves_nothing_running_on_a_cluster_of_others(
    attached: Nodes, tmp_path: Path
) -> None:
    """On another node than its own, where nobody but Ray knows of its end."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    worker = subprocess.Popen(command, cwd=HERE.parents[1])
    try:
        pids = asyncio.run(announced(tmp_path, 1))
        assert all(is_alive(pid) for pid in pids.values())
    finally:
        worker.kill()
        worker.wait(10)
    deadline = time.monotonic() + 30
    while left := [name for name, pid in pids.items() if is_alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


# --- a cluster of its own ------------------------------------------------------------------------

MAIN = """
from __future__ import annotations
import asyncio, json, multiprocessing, sys, time
from experiments import *
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

class In(ExperimentInputSpec):
    seconds: float = 0

class Out(ExperimentOutputSpec):
    there: str = ""

@ExperimentRegistry.Register(name="in-main")
def in_main(spec: In) -> Out:
    time.sleep(spec.seconds)
    return Out(there=f"{__name__} {beside()}")

def serve() -> None:
    from scythe.specs.codec import encode_spec
    from scythe.executor import ExecutorRequest
    from scythe.locate import code_ref
    from scythe.outcomes import LeafCall, StoreConfig
    from scythe_ray.plugin import open_executor

    executor = open_executor(ExecutorRequest(labels={"high_memory": "yes"}, slots=2))

    def call(seconds: float) -> LeafCall:
        spec = encode_spec(In(experiment_id="e/v1.0.0/now", sort_index=0, seconds=seconds))
        return LeafCall("1", code_ref(in_main), spec, "e/v1.0.0/now", StoreConfig("none"))

    async def run() -> None:
        result = await executor.run(call(0))
        capacity = executor.capacity
        print(json.dumps({"there": json.loads(result.scalars)["there"], "slots": capacity.slots,
                          "labels": capacity.labels, "place": capacity.place}), flush=True)
        await executor.run(call(600))

    asyncio.run(run())

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=serve)
    process.start()
    print(process.pid, flush=True)
    process.join()
"""


def test_a_worker_that_is_killed_takes_its_cluster_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments.py").write_text("def beside():\n    return 'found'\n")
    (tmp_path / "main.py").write_text(MAIN)
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", "local")
    main = subprocess.Popen(
        [sys.executable, "main.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert main.stdout is not None
        worker = psutil.Process(int(main.stdout.readline()))
        told = json.loads(main.stdout.readline())
        # `python main.py` whose worker is a process of multiprocessing: leaves find its modules.
        assert told["there"] == "__mp_main__ found"
        assert (told["slots"], told["labels"]) == (2, {"high_memory": "yes"})
        assert told["place"].endswith("started by this worker")

        family = worker.children(recursive=True)
        mine = [raylet for raylet in raylets_here() if raylet.process in family]
        assert [raylet.is_own for raylet in mine] == [True]  # no other worker attaches to it
        folder = Path(mine[0].temp_dir).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "token").stat().st_mode & 0o777 == 0o600
        assert _listens_elsewhere(family) == []

        worker.kill()
        assert _gone(family, 10) == []
        deadline = time.monotonic() + 5
        while folder.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not folder.exists()
    finally:
        for member in psutil.Process(main.pid).children(recursive=True):
            member.kill()
        main.communicate(timeout=20)


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_worker_whose_own_cluster_dies_starts_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", "local")
    with opened(slots=1) as harness:
        before = harness.where()["node"]

        async def lose() -> str:
            hangs = asyncio.ensure_future(harness.executor.run(call("hang", tmp_path, 1)))
            pids = await announced(tmp_path, 1)
            (tmp_path / "1.json").unlink()
            for child in psutil.Process().children():
                if child.name() == part:
                    child.kill()
            assert pids != await announced(tmp_path, 1)  # it was sent again, to the new one
            hangs.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hangs
            result = await harness.executor.run(call())
            return json.loads(json.loads(result.scalars)["text"])["node"]

        assert harness.do(lose(), within=90) != before
    assert not [
        one for one in psutil.Process().children() if one.name() in ("raylet", "gcs_server")
    ]


@pytest.mark.parametrize(("name", "value"), [("CUDA_VISIBLE_DEVICES", ""), (NUM_GPUS, "0")])
def test_a_promised_gpu_that_is_missing_is_noticed_before_ray_starts(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", "local")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "scythe_ray.cluster.own_cluster.connect", lambda *_, **__: pytest.fail("too late")
    )
    with pytest.raises(
        WorkerStartError, match=r"`has_gpu` is set, .* no visible GPU.*SCYTHE_RAY_NUM_GPUS"
    ):
        open_executor(ExecutorRequest(labels={"has_gpu": "yes"}, slots=1))


def test_a_leaf_that_needs_a_gpu_where_there_is_none_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By `resources=`, so that no label keeps it from this worker. Ray would wait for ever."""
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", "local")
    with opened(slots=1) as harness:
        for needs in (LeafResources(gpus=1), LeafResources(gpus=0.5)):
            with pytest.raises(ExecutorUnavailable) as caught:
                harness.do(harness.executor.run(call(resources=needs)), within=5)
            failure = caught.value.failure
            assert failure.kind is FailureKind.INFEASIBLE
            assert failure.kind.is_final
            assert f"needs 1 CPU, {needs.gpus:g} GPU" in failure.message
            assert re.search(rf"{os.uname().nodename} \(.*\), has only 0 GPU", failure.message)


def test_memory_that_runs_out_is_said_with_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")  # more is in use already
    with opened(slots=1) as harness:
        with pytest.raises(LeafFailed) as caught:
            harness.do(harness.executor.run(call("hang", tmp_path, 1)))
        failure = caught.value.failure
        assert failure.kind is FailureKind.OUT_OF_MEMORY
        assert re.search(r"[\d.]+GB of [\d.]+GB in use, [\d.]+GB of it by", failure.message)
        # The leaf may have been ended before it could say so, but it was tried once.
        assert failure.stats.pid == 0 or not is_alive(failure.stats.pid)


def _listens_elsewhere(family: list[psutil.Process]) -> list[str]:
    """Return the sockets that can be reached from other machines."""
    return [
        f"{member.name()} {connection.laddr}"
        for member in family
        for connection in member.net_connections()
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip.removeprefix("::ffff:") != "127.0.0.1"
    ]


def _gone(family: list[psutil.Process], within: float) -> list[str]:
    deadline = time.monotonic() + within
    while alive := [one for one in family if is_alive(one.pid) and one.is_running()]:
        if time.monotonic() > deadline:
            return [f"{one.pid} {one.cmdline()[:1]}" for one in alive]
        time.sleep(0.05)
    return []


@pytest.mark.parametrize(
    ("deadline", "kind"), [(0.0, "NodeDrained"), (0.1, "NodePreempted")], ids=str
)
def test_a_node_that_is_taken_away_is_told_apart_from_one_that_died(
    attached: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadline: float, kind: str
) -> None:
    """By `ray drain-node` as a cloud's spot handler calls it, with and without a deadline."""
    monkeypatch.setenv("SCYTHE_RAY_SYSTEM_RETRIES", "0")
    spot = attached.add("spot")
    with opened() as harness:
        cluster_gcs = gcs_client(attached.address)

        async def lose() -> ExecutorError:
            hangs = call("hang", tmp_path, 1, resources=LeafResources(custom={"spot": 1}))
            task = asyncio.ensure_future(harness.executor.run(hangs))
            await announced(tmp_path, 1)
            ends = int(1000 * (time.time() + deadline)) if deadline else 0
            accepted, why = cluster_gcs.drain_node(spot, PREEMPTION, "the price went up", ends)
            assert accepted, why
            while time.time() * 1000 <= ends or spot not in seen_draining(harness):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # another process brings it about
            kill_node(spot)
            with pytest.raises(ExecutorUnavailable) as caught:
                await task
            return caught.value

        failure = harness.do(lose(), within=60).failure
        assert (failure.kind, failure.type) == (FailureKind.PREEMPTED, kind)
        assert spot in failure.message


def seen_draining(harness: Harness) -> set[str]:
    """Return the nodes of which the executor knows that they are to go."""
    return set(harness.executor.cluster.taken_nodes())


# --- the last test: it takes a node away ---------------------------------------------------------


def test_a_node_that_is_lost(
    attached: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_RAY_SYSTEM_RETRIES", "1")
    with opened() as harness:

        async def lose() -> ExecutorError:
            hangs = call("hang", tmp_path, 1, resources=LICENSE)
            task = asyncio.ensure_future(harness.executor.run(hangs))
            await announced(tmp_path, 1)
            kill_node(attached.other)
            with pytest.raises(ExecutorUnavailable) as caught:
                await task
            return caught.value

        failure = harness.do(lose(), within=60).failure
        # Sent again it has no place any more: no other node has what it needs.
        assert failure.kind in (FailureKind.INFEASIBLE, FailureKind.NODE_LOST)
        harness.where()
