"""docs/security.md names every socket on which the stack and a worker listen, and no other."""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from scythe.stack.paths import layout_of
from scythe.stack.state import read_state
from tests.acceptance.workers import WorkerProcess, running

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
RAY_METHODS = (
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.NodeManagerService/RequestWorkerLease",
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.CoreWorkerService/PushTask",
)


@pytest.fixture(scope="module")
def worker(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from _worker(stack_env, tmp_path_factory.mktemp("worker") / "log")


def _worker(stack_env: dict[str, str], log: Path) -> Generator[WorkerProcess]:
    variables = {**stack_env, "SCYTHE_WORKER_EXECUTOR": "ray", "SCYTHE_WORKER_SLOTS": "1"}
    with running("lifecycle", "main.py", log=log, **variables) as found:
        found.wait_ready(180)
        yield found


def listed() -> dict[str, int]:
    """Return the sockets of each process on the page."""
    rows = re.findall(r"^\| `([^`]+)`[^|]* \| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in rows}


def ports(process: psutil.Process) -> list[Any]:
    try:
        found = process.net_connections("inet")
    except psutil.Error:
        return []
    return [one.laddr for one in found if one.status == psutil.CONN_LISTEN]


def name_of(process: psutil.Process) -> str:
    """Return the name of a process as the page has it."""
    words = process.cmdline()
    name = Path(words[0].split()[0]).name if words else process.name()
    if name == "scythe-engine":
        return f"{name} {words[1]}"
    if words[0].startswith("ray::") and name != "ray::RuntimeEnvAgent":
        return "ray::"
    return "python" if name.startswith("python") else name


def family(worker: WorkerProcess) -> set[psutil.Process]:
    """Return a worker's processes, also those of Ray that write over their environment."""
    found = set(worker.family())
    return found.union(*(process.children(recursive=True) for process in found))


def on_ray(worker: WorkerProcess) -> list[psutil.Process]:
    return [process for process in family(worker) if ports(process)]


def test_the_page_lists_what_listens(stack_home: Path, worker: WorkerProcess) -> None:
    state = read_state(layout_of(stack_home))
    assert state is not None
    members: list[psutil.Process] = []
    for record in state.parts.values():
        leader = psutil.Process(record.pid)
        members += [leader, *leader.children(recursive=True)]
    members += family(worker)
    found: dict[str, set[int]] = {}
    for process in members:
        if addresses := ports(process):
            assert {address.ip.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
            found.setdefault(name_of(process), set()).add(len(addresses))
    found["postgres"] = {len([*layout_of(stack_home).sockets.glob(".s.PGSQL.*[0-9]")])}
    assert found == {name: {number} for name, number in listed().items()}


def test_ray_refuses_who_has_no_token(worker: WorkerProcess) -> None:
    refused = 0
    for process in on_ray(worker):
        for address in ports(process):
            answers = [_grpc(address.port, method) for method in RAY_METHODS]
            status = _http(address.port)
            assert grpc.StatusCode.OK not in answers
            assert status in {None, 401}
            assert grpc.StatusCode.UNAUTHENTICATED in answers or status == 401
            refused += 1
    assert refused >= 6


def test_a_local_rays_files_are_the_users_alone(worker: WorkerProcess) -> None:
    if os.geteuid() != 0:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("needs root, to be another user")
    from tests.integration.test_stack_attacks import READ, attack

    lines = [" ".join(one.cmdline()) for one in on_ray(worker)]
    folders = {
        Path(found[0]) for line in lines if (found := re.search(r"/\S*/scythe-ray-\w+", line))
    }
    assert len(folders) == 1
    files = [file for file in folders.pop().rglob("*") if file.is_file()]
    assert len(files) > 5
    assert attack(READ, *files) == []


def _grpc(port: int, method: str) -> grpc.StatusCode:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(method)
        try:
            call(b"", timeout=3)
        except grpc.RpcError as error:
            return error.code()  # pyright: ignore
    return grpc.StatusCode.OK


def _http(port: int) -> int | None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        client.request("GET", "/metrics")
        return client.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        client.close()
