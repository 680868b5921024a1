"""Settings, addresses and the environment of Ray; none of it needs a cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from scythe.errors import SettingsError, WorkerStartError
from scythe.executor import ExecutorRequest
from scythe_ray.cluster import discovery
from scythe_ray.cluster.environment import RayEnvironment
from scythe_ray.config.settings import ray_settings
from scythe_ray.plugin import open_executor

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SCYTHE_RAY_", "RAY_")):
            monkeypatch.delenv(name)


def test_settings_have_defaults() -> None:
    settings = ray_settings()
    assert settings.address is None
    assert settings.SCOPE == "node"
    assert timedelta(seconds=30) == settings.CONNECT_TIMEOUT
    assert (settings.PREFETCH, settings.SYSTEM_RETRIES, settings.RESOURCES) == (0, 3, {})


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_RAY_CONNECT_TIMEOUT", "1m30s")
    monkeypatch.setenv("SCYTHE_RAY_RESOURCES", '{"high_memory": 4, "license": 0.5}')
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    settings = ray_settings()
    assert timedelta(seconds=90) == settings.CONNECT_TIMEOUT
    assert settings.RESOURCES == {"high_memory": 4.0, "license": 0.5}
    assert (settings.address, settings.address_source) == ("10.0.0.1:6379", "RAY_ADDRESS")
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", "10.0.0.2")
    settings = ray_settings()
    assert (settings.address, settings.address_source) == ("10.0.0.2", "SCYTHE_RAY_ADDRESS")


@pytest.mark.parametrize(
    ("name", "value"),
    [("SCOPE", "galaxy"), ("PREFETCH", "-1"), ("RESOURCES", "high_memory=4"), ("NUM_GPUS", "x")],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"SCYTHE_RAY_{name}", value)
    with pytest.raises(SettingsError, match=f"(?i){name}"):
        ray_settings()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1:6380", ("10.0.0.1", 6380)),
        ("head", ("head", 6379)),
        ("head:6379", ("head", 6379)),
        ("[::1]:6379", ("::1", 6379)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert discovery.host_and_port(address, "X") == expected


@pytest.mark.parametrize("address", ["ray://head:10001", "head:port", ":6379", "6379"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(WorkerStartError, match="SCYTHE_RAY_ADDRESS=.*host:port"):
        discovery.host_and_port(address, "SCYTHE_RAY_ADDRESS")


def test_the_environment_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "7")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the user's cluster")
    before = dict(os.environ)
    environment = RayEnvironment()
    environment.for_own_cluster("/somewhere/token")
    assert os.environ["RAY_worker_niceness"] == "7"  # the user's own values stay
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/somewhere/token"
    assert "RAY_AUTH_TOKEN" not in os.environ
    environment.restore()
    assert dict(os.environ) == before


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_address_at_which_nothing_listens(
    monkeypatch: pytest.MonkeyPatch, silent_port: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", f"127.0.0.1:{closed}")
    monkeypatch.setenv("SCYTHE_RAY_CONNECT_TIMEOUT", "1s")
    began = time.monotonic()
    with pytest.raises(WorkerStartError, match=rf"127\.0\.0\.1:{closed} \(SCYTHE_RAY_ADDRESS\)"):
        open_executor(ExecutorRequest())
    assert time.monotonic() - began < 10


def test_the_environment_names_what_is_missing_for_authentication(
    monkeypatch: pytest.MonkeyPatch, silent_port: int
) -> None:
    """Ray would abort the process."""
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", f"127.0.0.1:{silent_port}")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(WorkerStartError, match="RAY_AUTH_MODE=token .*RAY_AUTH_TOKEN_PATH"):
        open_executor(ExecutorRequest())


def test_auto_without_a_ray_on_this_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCYTHE_RAY_ADDRESS", "auto")
    monkeypatch.setattr("scythe_ray.cluster.attach.raylets_here", list)
    with pytest.raises(WorkerStartError, match="SCYTHE_RAY_ADDRESS=auto.*ray start"):
        open_executor(ExecutorRequest())


def test_what_is_left_of_a_dead_cluster_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A node whose head is gone, and the file that tells where that head was."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    (tmp_path / "ray_current_cluster").write_text(closed)
    left = discovery.Raylet("ab", closed, str(tmp_path), os.geteuid(), process=None)
    monkeypatch.setattr("scythe_ray.cluster.discovery.raylets_here", lambda: [left])
    began = time.monotonic()
    assert discovery.ray_of_this_node(5) is None
    assert time.monotonic() - began < 5


def test_a_node_is_up_as_long_as_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    process = psutil.Popen(["sleep", "600"])
    raylet = discovery.Raylet("ab", "10.0.0.1:6379", "/tmp/ray", 0, process)
    monkeypatch.setattr("scythe_ray.cluster.discovery.raylets_here", lambda: [raylet])
    is_up, unknown = discovery.node_watch("ab"), discovery.node_watch("cd")
    assert is_up()
    process.kill()
    deadline = time.monotonic() + 10
    while is_up():  # a zombie is not up
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.wait(10)
    assert not is_up()
    assert unknown()  # in another container, where its process is not seen


def test_slots_that_make_no_sense() -> None:
    with pytest.raises(WorkerStartError, match="at least 1, got 0"):
        open_executor(ExecutorRequest(slots=0))


WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # as if it were not installed
import scythe_ray, scythe_ray.plugin, scythe_ray.executor, scythe_ray.on_node.task
from scythe.errors import WorkerStartError
from scythe.executor import ExecutorRequest, load_executor_factory
assert not {"hatchet_sdk", "boto3", "psutil"} & set(sys.modules), sys.modules
try:
    load_executor_factory("ray")(ExecutorRequest())
except WorkerStartError as error:
    print(error)
"""


def test_without_ray_the_package_imports_and_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'scythe-ray[ray]'" in done.stdout
