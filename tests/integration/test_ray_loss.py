"""A Ray cluster that is lost: its head, or this machine's node; and what becomes of leaves."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

from scythe.errors import (
    ExecutorError,
    ExecutorUnavailable,
    LeafFailed,
    PlaceAwayError,
    WorkerStartError,
)
from scythe.executor import ExecutorRequest
from scythe.outcomes import FailureKind
from scythe_ray.cluster import driver as scythe_ray_driver
from scythe_ray.config.resources import demand_of
from scythe_ray.config.settings import ray_settings
from scythe_ray.executor import RayExecutor
from scythe_ray.plugin import open_executor
from scythe_ray.submit import node_table as scythe_ray_nodes
from scythe_ray.submit.failures import lost_failure
from scythe_ray.submit.session import Session
from scythe_ray.submit.submission import PlacementLost
from tests.integration.test_ray_cluster import announced, call, hanging, is_alive, until

RAY = Path(sys.executable).with_name("ray")


@dataclass
class Watched:
    """The worker's side: what the executor asked of it."""

    asked: list[Any] = field(default_factory=list)

    def offer(self, *, taking: bool) -> None:
        self.asked.append(taking)

    def leave(self, message: str) -> None:
        self.asked.append(message)

    def start_anew(self, message: str) -> None:
        self.asked.append(("anew", message))


@dataclass(frozen=True)
class Head:
    """A head on this machine that is started by `ray start`, as a user would."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def temporary(self) -> Path:
        """Where leaves have their temporary files."""
        return self.folder / "t"

    def start(self) -> None:
        """Start it with a node of one CPU."""
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "TMPDIR": str(self.temporary),
        }
        self.temporary.mkdir(exist_ok=True)
        temporary = f"--temp-dir={self.folder}/r"
        head = ("--head", f"--port={self.port}", "--include-dashboard=false", temporary)
        node = ("--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=80000000")
        started = subprocess.run(
            [str(RAY), "start", *head, *node],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert started.returncode == 0, started.stdout + started.stderr

    def processes(self, *names: str) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in psutil.process_iter(["name", "cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            # Ray's server for clients only has the address in its command line.
            ours = str(self.folder) in line or f"--address={self.address}" in line
            if ours and (not names or process.info["name"] in names):
                found.append(process)
        return found

    def kill(self, *names: str) -> None:
        members = self.processes(*names)
        assert members
        for member in members:
            member.kill()
        psutil.wait_procs(members, timeout=10)


@pytest.fixture(scope="module")
def only_head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "token").write_text(secrets.token_hex(32))
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        head = Head(Path(folder), port)
        try:
            yield head
        finally:
            for member in head.processes():
                member.kill()


@pytest.fixture
def head(only_head: Head, monkeypatch: pytest.MonkeyPatch) -> Head:
    """The head, started again if a test has ended it."""
    for name in list(os.environ):
        if name.startswith(("SCYTHE_RAY_", "RAY_")):
            monkeypatch.delenv(name)
    if len(only_head.processes("gcs_server", "raylet")) < 2:
        for member in only_head.processes():
            member.kill()
        only_head.start()
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", only_head.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(only_head.folder / "token"))
    monkeypatch.setattr(scythe_ray_nodes, "_PATIENCE", 2.0)
    return only_head


@contextmanager
def opened(worker: Watched) -> Iterator[tuple[RayExecutor, Callable[..., Any]]]:
    executor = open_executor(ExecutorRequest(host=worker))
    with asyncio.Runner() as runner:

        def do(work: Any, within: float = 120.0) -> Any:
            return runner.run(asyncio.wait_for(work, within))

        try:
            yield executor, do
        finally:
            do(executor.aclose())


async def lose(
    executor: RayExecutor, folder: Path, end: Callable[[], None], *, may_be_left: bool = False
) -> ExecutorError:
    """Run a leaf, end what it needs, and return how it fails, within 30 s of that."""
    task = asyncio.ensure_future(executor.run(call("hang", folder, 1)))
    pids = await announced(folder, 1)
    end()
    with pytest.raises((ExecutorUnavailable, LeafFailed)) as caught:
        async with asyncio.timeout(30):
            await task
    deadline = time.monotonic() + 20
    while not may_be_left and any(is_alive(pid) for pid in pids.values()):
        assert time.monotonic() < deadline, "something of the leaf is left"
        await asyncio.sleep(0.1)
    return caught.value


def says(command: list[str], environment: dict[str, str], lines: list[str]) -> None:
    """Run a script beside this process, and check what it prints and that it ends well."""
    done = subprocess.run(
        command,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == lines, done.stderr
    assert done.returncode == 0


def test_a_lost_head_ends_a_worker_that_is_to_stop_then(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCYTHE_RAY_ON_CLUSTER_LOSS", "exit")
    worker = Watched()
    with opened(worker) as (executor, do):
        failure = do(lose(executor, tmp_path, head.kill)).failure
        assert failure.kind is FailureKind.CLUSTER_LOST
        do(until(lambda: len(worker.asked) == 2))
        assert worker.asked[0] is False
        assert f"cluster at {head.address} is lost" in worker.asked[1]
        assert "SCYTHE_RAY_ON_CLUSTER_LOSS=exit" in worker.asked[1]
        with pytest.raises(ExecutorUnavailable) as caught:  # one that came in the meantime
            do(executor.run(call()), within=5)
        assert caught.value.failure.kind is FailureKind.CLUSTER_LOST
        import ray

        with pytest.raises(ray.exceptions.RaySystemError):
            ray.put(1)  # it would start a cluster by itself


def test_a_node_that_died_gives_its_leaves_back_and_is_attached_to_again(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is there all the time: it is the process of the node that is watched."""
    monkeypatch.setattr(tempfile, "tempdir", str(head.temporary))
    worker = Watched()
    with opened(worker) as (executor, do):
        assert executor.capacity.environment == {"SCYTHE_RAY_ADDRESS": head.address}
        failure = do(lose(executor, tmp_path, lambda: head.kill("raylet"))).failure
        assert failure.kind in (FailureKind.CLUSTER_LOST, FailureKind.NODE_LOST)
        assert not failure.kind.is_final
        do(until(lambda: worker.asked == [False]))
        assert list(head.temporary.glob("scythe-leaf-*"))
        head.kill()
        head.start()
        do(until(lambda: worker.asked == [False, True]))
        assert not list(head.temporary.glob("scythe-leaf-*"))
        do(executor.run(call()))


def test_a_head_that_is_back_at_once_finds_the_worker_gone(head: Head, tmp_path: Path) -> None:
    """Ray ends a process that still belongs to the old one when another answers there."""
    worker = Watched()
    with opened(worker) as (executor, do):
        failure = do(lose(executor, tmp_path, head.kill, may_be_left=True)).failure
        assert failure.kind in (FailureKind.CLUSTER_LOST, FailureKind.NODE_LOST)
        head.start()
        do(until(lambda: worker.asked == [False, True]))
        do(executor.run(call()))


def test_a_leaf_that_is_about_to_be_sent_when_the_cluster_is_lost_is_not_sent(head: Head) -> None:
    """Ray would take it, and never say what becomes of it."""
    with opened(Watched()) as (executor, do), ThreadPoolExecutor(1) as threads:
        cluster, failure = executor.cluster, lost_failure("its head does not answer")

        async def send() -> None:
            session = Session(cluster, cluster.nodes(), ray_settings(), threads)
            await session.give_up(failure)
            await session.run(call(), demand_of(call()))

        with pytest.raises(PlacementLost) as caught:
            do(send(), within=10)
        assert caught.value.failure == failure


STOPPED = """
import os, signal, sys, threading
from scythe_ray.cluster import driver

def elsewhere(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def connect():
    driver.connect(60.0, address=sys.argv[1])
    connected.append(True)

def stop(when):
    os.kill(os.getpid(), signal.SIGTERM)
    print(when, flush=True)

connected = []
signal.signal(signal.SIGTERM, lambda *_: print("told", end=" "))
connect()
stop("attached")
elsewhere(driver.leave)  # as the executor does, whose main thread has Hatchet's loop
stop("away")
elsewhere(connect)
assert len(connected) == 2
stop("again")
driver.leave()
stop("left")
"""


def test_a_worker_hears_that_it_is_to_stop_while_its_cluster_is_lost_and_afterwards(
    head: Head,
) -> None:
    """Else it would end at once, with all leaves that run and without cleaning up."""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    says(
        [sys.executable, "-c", STOPPED, head.address],
        environment,
        ["told attached", "told away", "told again", "told left"],
    )


def test_what_is_wrong_with_a_head_is_said_in_time(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token; a node that is gone while the head is there; an address file of a dead head."""
    monkeypatch.setenv("SCYTHE_RAY_CONNECT_TIMEOUT", "3s")
    monkeypatch.setenv("HOME", str(head.folder))  # no ~/.ray/auth_token
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    began = time.monotonic()
    with pytest.raises(WorkerStartError, match="refuses this worker's authentication token"):
        open_executor(ExecutorRequest())
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(head.folder / "token"))
    with monkeypatch.context() as other:
        other.setattr("platform.python_version", lambda: "3.9.1")
        with pytest.raises(WorkerStartError, match=r"runs Python .*this worker 3\.9\.1"):
            open_executor(ExecutorRequest())
    head.kill("raylet")
    with pytest.raises(PlaceAwayError, match="This machine is not a node of the Ray cluster"):
        open_executor(ExecutorRequest())
    assert time.monotonic() - began < 40


def test_a_head_that_hangs_keeps_neither_leaf_nor_worker(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one behind a cut network does; where Ray cannot disconnect, a new process must attach."""
    monkeypatch.setattr(scythe_ray_driver, "_LEAVE_TIMEOUT", 2.0)
    worker = Watched()
    with opened(worker) as (executor, do):
        (gcs,) = head.processes("gcs_server")
        failure = do(lose(executor, tmp_path, gcs.suspend, may_be_left=True)).failure
        assert failure.kind is FailureKind.CLUSTER_LOST
        do(until(lambda: len(worker.asked) == 2))
        assert worker.asked[0] is False
        assert worker.asked[1][0] == "anew"
        assert head.address in worker.asked[1][1]
        gcs.resume()
        do(until(lambda: worker.asked[2:] == [True]))
        do(executor.run(call()))


def test_a_head_that_hangs_before_the_first_leaf_does_not_keep_that(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray tells the head of what runs leaves when the first one is sent."""
    monkeypatch.setattr(scythe_ray_driver, "_LEAVE_TIMEOUT", 2.0)
    worker = Watched()
    with opened(worker) as (executor, do):
        (gcs,) = head.processes("gcs_server")
        with hanging(gcs), pytest.raises(ExecutorUnavailable) as caught:
            do(executor.run(call()), within=50)
        assert caught.value.failure.kind is FailureKind.CLUSTER_LOST
        do(until(lambda: worker.asked[-1] is True))
        do(executor.run(call()))


CONTAINED = """
import asyncio, os
import psutil
from scythe.executor import ExecutorRequest
from scythe_ray.plugin import open_executor

class Worker:
    asked = []
    leave = start_anew = print
    def offer(self, *, taking):
        self.asked.append(taking)

async def lose_node(executor, worker):
    from tests.integration.test_ray_cluster import call, until
    await executor.run(call())
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "raylet":
            process.kill()
    await until(lambda: worker.asked == [False, True])
    await executor.run(call())
    await executor.aclose()

assert os.getppid() == 1
worker = Worker()
asyncio.run(lose_node(open_executor(ExecutorRequest(host=worker)), worker))
print("there")
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux")
def test_a_worker_in_a_container_outlives_its_node() -> None:
    """There `main.py` is process 1, and Ray ends what has that for a parent without a word."""
    first = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    given |= {"SCYTHE_RAY_ADDRESS": "local", "SCYTHE_RAY_NUM_CPUS": "1"}
    given["PYTHONPATH"] = str(Path(__file__).parent)  # of the leaf's module
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    says(
        [*namespace, sys.executable, "-c", first, sys.executable, "-c", CONTAINED], given, ["there"]
    )
