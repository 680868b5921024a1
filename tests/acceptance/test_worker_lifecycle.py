"""Workers start, stop, die and come back: real processes, real signals, the real engine."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from scythe.stack.ports import is_free
from tests.acceptance.running import APPS, load_app
from tests.acceptance.workers import TAG, WorkerProcess, running, until

APP = "lifecycle"


@pytest.fixture(autouse=True)
def _stack_here(stack: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    from scythe.engine.client import client

    monkeypatch.syspath_prepend(str(APPS / APP))
    client.cache_clear()
    yield
    client.cache_clear()


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return json.load(answer)["status"] == "HEALTHY"
    except OSError:
        return False


class Held:
    """Leaves that run until they are let go."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.app: Any = load_app(APP, "held.py")

    def spec(self, number: int = 0) -> Any:
        return self.app.HeldInput(
            experiment_id="held/v1.0.0/now", sort_index=number, folder=str(self.folder)
        )

    def start(self) -> Any:
        """Start one leaf and wait until it runs."""
        ref = self.app.held.run_no_wait(self.spec())
        until(self.pids, "the leaf runs")
        return ref

    def pids(self) -> list[int]:
        return [int(path.name.rsplit("-", 1)[1]) for path in self.folder.glob("started-*")]

    def let_go(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def held(tmp_path: Path) -> Generator[Held]:
    leaves = Held(tmp_path / "held")
    yield leaves
    leaves.let_go()  # those of a test that failed are in the way of the next one


@pytest.fixture
def other(tmp_path: Path) -> Generator[Held]:
    leaves = Held(tmp_path / "other")
    yield leaves
    leaves.let_go()


# Stopping


@pytest.fixture
def health_ports() -> tuple[int, int]:
    """Two free ports, of the leaf part and of the fan part.

    They lie below those from which the system takes one for any connection.
    """
    ports = random.sample(range(10_000, 20_000, 2), 100)
    port = next(port for port in ports if is_free(port) and is_free(port + 1))
    return port, port + 1


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_running_leaves_finish_before_the_worker_stops(
    how: str, held: Held, health_ports: tuple[int, int], tmp_path: Path
) -> None:
    health = {
        "HATCHET_CLIENT_WORKER_HEALTHCHECK_ENABLED": "true",
        "HATCHET_CLIENT_WORKER_HEALTHCHECK_PORT": str(health_ports[0]),
    }
    with running(APP, "main.py", log=tmp_path / "log", **health) as worker:
        worker.wait_ready()
        for port in health_ports:
            until(lambda port=port: is_healthy(port), f"the part at port {port} says it is well")
            assert listens_at(worker, port) == {"127.0.0.1"}
        ref = held.start()
        metrics = f"http://127.0.0.1:{health_ports[0]}/metrics"
        with urllib.request.urlopen(metrics, timeout=10) as answer:
            counts = answer.read().decode().splitlines()
        assert {"scythe_leaves_in_flight 1.0", "scythe_leaves_done_total 0.0"} <= set(counts)
        if how == "SIGTERM":
            worker.popen.send_signal(signal.SIGTERM)
        else:  # a terminal sends it to all of the foreground group
            os.killpg(worker.popen.pid, signal.SIGINT)
        worker.wait_for_line("waits for 1 running leaf")
        held.let_go()
        assert worker.wait_end() == 0
        assert ref.result(timeout=20).worker == worker.tag
        assert len(held.pids()) == 1
        assert "Traceback" not in worker.text
        assert "leaked" not in worker.text


def listens_at(worker: WorkerProcess, port: int) -> set[str]:
    """Return the addresses at which a process of the worker listens on a port."""
    return {
        connection.laddr.ip
        for process in worker.family()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }


def test_the_second_signal_stops_at_once(held: Held, tmp_path: Path) -> None:
    with running(APP, "main.py", log=tmp_path / "log", SCYTHE_WORKER_DOES_FAN="0") as worker:
        worker.wait_ready()
        ref = held.start()
        worker.popen.send_signal(signal.SIGTERM)
        worker.wait_for_line("waits for 1 running leaf")
        time.sleep(0.6)  # two signals within half a second are one
        worker.popen.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert worker.wait_end() == 128 + signal.SIGTERM
        assert time.monotonic() - started < 10
        assert "asked to stop at once) with 1 running leaf" in worker.text
        _cancel(ref)


def _cancel(ref: Any) -> None:
    from scythe.engine.client import cancel_run

    cancel_run(ref.workflow_run_id)


def test_what_a_dead_worker_ran_is_run_again(held: Held, other: Held, tmp_path: Path) -> None:
    """Time runs out for one worker; parts of another one are killed: nothing is lost."""
    from scythe.experiments import BaseExperiment

    with running(
        APP, "main.py", log=tmp_path / "a", SCYTHE_WORKER_SHUTDOWN_TIMEOUT="500ms"
    ) as first:
        first.wait_ready()
        ref = held.start()
        first.popen.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert first.wait_end() == 0
        assert time.monotonic() - started < 15
        assert (
            "was killed (it had not stopped after 0.5 s) with 1 running leaf, which Hatchet gives"
            in (first.text)
        )
    # A slot for each leaf of the run, also where the first worker's leaf is there before them.
    with running(APP, "main.py", log=tmp_path / "b", SCYTHE_WORKER_SLOTS="3") as second:
        second.wait_ready()
        specs = [other.spec(number) for number in range(2)]
        _, run_ref = BaseExperiment(runnable=other.app.held).allocate(specs, version="bumppatch")
        until(lambda: len(other.pids()) == 2, "both leaves of the run run")
        leaf, fan = second.part("leaf"), second.part("fan")
        kill_the_connection(fan)
        kill_a_part(second, "leaf")
        second.wait_for_line(f"pid {fan}. died .exit code 1: The connection to Hatchet ended")
        until(lambda: leaf != second.part("leaf") and fan != second.part("fan"), "both are back")
        kill_a_part(second, "fan")
        held.let_go()
        other.let_go()
        result = run_ref.result(timeout=150)
        assert (result.n_leaves, result.n_failed) == (2, 0)
        assert ref.result(timeout=60).worker == second.tag
        second.stop()
        assert not second.family()


def kill_the_connection(pid: int) -> None:
    """Kill the SDK's own process of a part, without which it is deaf."""
    children = psutil.Process(pid).children()
    next(one for one in children if "spawn_main" in " ".join(one.cmdline())).kill()


def kill_a_part(worker: WorkerProcess, role: str) -> None:
    part = psutil.Process(worker.part(role))
    family = [part, *part.children(recursive=True)]
    died = f"The {role} worker process .*pid {part.pid}. died .killed by SIGKILL.. Restarting it in"
    part.kill()
    worker.wait_for_line(died)
    assert not [one for one in family if one.is_running() and one.status() != "zombie"]


def test_a_worker_whose_main_process_is_killed_leaves_nothing(held: Held, tmp_path: Path) -> None:
    """Its parts notice, let running leaves finish, and end."""
    with running(APP, "main.py", log=tmp_path / "log") as worker:
        worker.wait_ready()
        ref = held.start()
        worker.popen.kill()
        worker.wait_for_line("leaf: The worker's supervisor is gone")
        worker.wait_for_line("fan: The worker's supervisor is gone")
        held.let_go()
        assert ref.result(timeout=20).worker == worker.tag
        worker.wait_gone()


def test_a_worker_without_a_main_process_stops_in_time(held: Held, tmp_path: Path) -> None:
    with running(
        APP,
        "main.py",
        log=tmp_path / "log",
        SCYTHE_WORKER_DOES_FAN="0",
        SCYTHE_WORKER_SHUTDOWN_TIMEOUT="1s",
    ) as worker:
        worker.wait_ready()
        ref = held.start()
        worker.popen.kill()
        worker.wait_gone(15)
        _cancel(ref)


# Starting


def test_however_a_worker_is_started(tmp_path: Path) -> None:
    """`python -m package`, a console script, and a thread of another program."""
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.experiment import Experiment

    class In(ExperimentInputSpec):
        x: float

    class Out(ExperimentOutputSpec):
        y: float
        worker: str

    def function(input_spec: Any) -> Any: ...

    function.__annotations__ = {"input_spec": In, "return": Out}
    commands = {
        "lifecycle_module": (["-m", "package"], 6.0),
        "scythe_experiment_tripled": (["console-script"], 9.0),
    }
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(running(APP, *command, log=tmp_path / name))
            for name, (command, _) in commands.items()
        }
        for name, worker in workers.items():
            worker.wait_ready()
            spec = In(experiment_id="start/v1.0.0/now", sort_index=0, x=3)
            output = Experiment(function, name).run(spec)
            assert (output.y, output.worker) == (commands[name][1], worker.tag)
        for worker in workers.values():
            worker.popen.send_signal(signal.SIGTERM)
        for worker in workers.values():
            assert worker.wait_end() == 0


def test_a_worker_in_a_thread_is_stopped_by_its_program(held: Held, tmp_path: Path) -> None:
    held.let_go()
    log = tmp_path / "log"
    with log.open("wb") as output:
        program = subprocess.Popen(
            [sys.executable, "threaded.py"],
            cwd=APPS / APP,
            env={**os.environ, TAG: "thread"},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: " is ready." in log.read_text(), "it is ready", 90)
        assert held.app.held.run(held.spec()).worker == "thread"
        family = psutil.Process(program.pid).children(recursive=True)
        assert program.stdin
        program.stdin.close()
        assert program.wait(60) == 0, log.read_text()
        assert "the program goes on" in log.read_text()
        assert not psutil.wait_procs(family, timeout=5)[1]
    finally:
        if program.poll() is None:
            program.terminate()
            program.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_while_ray_starts_leaves_no_ray(
    number: signal.Signals, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    variables = {"SCYTHE_WORKER_EXECUTOR": "ray", "SCYTHE_WORKER_DOES_FAN": "0"}
    with running(APP, "main.py", log=tmp_path / "log", **variables) as worker:
        until(lambda: rays_folder(worker), "the first process of Ray is there", 90)
        folder = rays_folder(worker)
        worker.popen.send_signal(number)
        worker.popen.wait(60)
        worker.wait_gone(60)
        assert "is ready" not in worker.text
        assert "Traceback" not in worker.text
        until(lambda: not folder.exists(), f"{folder} is removed", 20)


def rays_folder(worker: WorkerProcess) -> Path | None:
    """Return the folder of the Ray that the worker starts, once a process of it is there."""
    for process in worker.family():
        with suppress(psutil.Error):
            if found := re.search(
                r"--log_dir=(/\S*?/scythe-ray-[^/]+)/", " ".join(process.cmdline())
            ):
                return Path(found[1])
    return None


ERRORS = {
    "no token": (
        {"HATCHET_CLIENT_TOKEN": "", "SCYTHE_DEV_HOME": "/nowhere"},
        r"HATCHET_CLIENT_TOKEN is not set and no local stack runs: .*`scythe dev`",
    ),
    "no JWT": ({"HATCHET_CLIENT_TOKEN": "secret"}, r"no usable Hatchet token .*\. Set HATCHET"),
    "refused token": ({}, r"refuses the token: make a new"),
    "engine unreachable": (
        {"HATCHET_CLIENT_HOST_PORT": "127.0.0.1:9"},
        r"The Hatchet engine at 127\.0\.0\.1:9 cannot be reached .*. Check that it runs",
    ),
    "no bucket named": (
        {"SCYTHE_STORAGE_BUCKET": None, "SCYTHE_DEV_HOME": "/nowhere"},
        r"SCYTHE_STORAGE_BUCKET is not set and no local stack runs: set it",
    ),
    "bucket missing": (
        {"SCYTHE_STORAGE_BUCKET": "not-there"},
        r"s3://not-there/.*create the bucket or correct SCYTHE_STORAGE_BUCKET",
    ),
    "wrong key": (
        {"AWS_SECRET_ACCESS_KEY": "wrong-secret"},
        r"check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "S3 unreachable": (
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"},
        r"check AWS_ENDPOINT_URL_S3, and that the S3 server runs",
    ),
    "unknown executor": (
        {"SCYTHE_WORKER_EXECUTOR": "slurm"},
        r"Unknown executor 'slurm' \(installed: .*\)\. Set `executor=`",
    ),
    "package missing": (
        {"SCYTHE_WORKER_EXECUTOR": "broken"},
        r"Executor 'broken' cannot be loaded .*. Run `pip install",
    ),
    "limit of nothing": (
        {"SCYTHE_TIMEOUT_SCATTER_GATHER_EXECUTION": "0"},
        r"SCYTHE_TIMEOUT_SCATTER_GATHER_EXECUTION cannot be '0': it must be positive",
    ),
    "limit too long": (
        {"SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION": "9999999h"},
        r"SCYTHE_TIMEOUT_EXPERIMENT_EXECUTION cannot be '9999999h': it must be at most '876000h'",
    ),
    "no limit at all": (
        {"SCYTHE_FETCH_TIMEOUT": "abc"},
        r"SCYTHE_FETCH_TIMEOUT cannot be 'abc': it must be a duration",
    ),
    "home that cannot be written": (
        {"HOME": "/proc/home", "XDG_CACHE_HOME": "", "SCYTHE_CACHE_DIR": ""},
        r"Downloads cannot be written to /proc/home/.*. Set SCYTHE_CACHE_DIR to a writable folder",
    ),
    "no time to stop": (
        {"SCYTHE_WORKER_SHUTDOWN_TIMEOUT": "-5s"},
        r"SCYTHE_WORKER_SHUTDOWN_TIMEOUT .* cannot be '-5s': it must not be negative",
    ),
    "no time for Ray": (
        {"SCYTHE_RAY_CONNECT_TIMEOUT": "0", "SCYTHE_WORKER_EXECUTOR": "ray"},
        r"SCYTHE_RAY_CONNECT_TIMEOUT cannot be '0': it must be positive",
    ),
    "nothing to do": (
        {"SCYTHE_WORKER_DOES_FAN": "0", "SCYTHE_WORKER_DOES_LEAF": "0"},
        r"has nothing to do. Set SCYTHE_WORKER_DOES_FAN or",
    ),
}


@pytest.fixture
def broken_executor(tmp_path: Path) -> str:
    """An installed executor whose package needs one that is not there."""
    folder = tmp_path / "site"
    info = folder / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scythe.executors]\nbroken = broken_plugin:open\n")
    (folder / "broken_plugin.py").write_text("import package_that_is_not_there\n")
    return str(folder)


@pytest.mark.parametrize("what", ERRORS)
def test_what_keeps_a_worker_from_starting_is_one_sentence(
    what: str, broken_executor: str, stack: dict[str, str]
) -> None:
    variables, sentence = ERRORS[what]
    environment = {**os.environ, "PYTHONPATH": broken_executor}
    for name, value in variables.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    if what == "refused token":
        environment["HATCHET_CLIENT_TOKEN"] = stack["HATCHET_CLIENT_TOKEN"][:-6] + "AAAAAA"
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=APPS / APP,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert re.match(rf"scythe: .*{sentence}", lines[0]), lines[0]
    for secret in (stack["HATCHET_CLIENT_TOKEN"], stack["AWS_SECRET_ACCESS_KEY"], "wrong-secret"):
        assert secret not in done.stdout + done.stderr


def test_no_experiment_is_one_sentence() -> None:
    code = "from scythe.worker import ScytheWorkerConfig; ScytheWorkerConfig().start()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"scythe: No experiment is registered in this process. Import the modules .*\n", done.stderr
    )


# The engine goes away


class Proxy:
    """A way to the engine that can be cut."""

    def __init__(self, target: str) -> None:
        self.host, _, port = target.rpartition(":")
        self.target = int(port)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.open()

    def open(self) -> None:
        self._do(self._open())

    def cut(self) -> None:
        self._do(self._cut())

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(self.host, self.target)
            await asyncio.gather(self._copy(reader, there), self._copy(back, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in (writer, there):
                if one is not None:
                    one.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


def test_a_part_that_dies_while_the_engine_is_away_waits_for_it(
    held: Held, stack: dict[str, str], tmp_path: Path
) -> None:
    proxy = Proxy(stack["HATCHET_CLIENT_HOST_PORT"])
    try:
        with running(
            APP,
            "main.py",
            log=tmp_path / "log",
            SCYTHE_WORKER_DOES_FAN="0",
            HATCHET_CLIENT_HOST_PORT=f"127.0.0.1:{proxy.port}",
        ) as worker:
            worker.wait_ready()
            proxy.cut()
            os.kill(worker.part("leaf"), signal.SIGKILL)
            worker.wait_for_line(r"died \(exit code 1: The Hatchet engine at .* cannot be reached")
            proxy.open()
            worker.wait_for_line("is ready again")
            held.let_go()
            assert held.app.held.run(held.spec()).worker == worker.tag
            worker.stop()
            assert "Traceback" not in worker.text
    finally:
        proxy.close()
