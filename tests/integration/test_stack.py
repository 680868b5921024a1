"""The local stack with its real programs: start, die, come back, stop."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import psutil
import pytest

from scythe.errors import StackError
from scythe.processes.identity import ProcessRecord
from scythe.stack import StackConnection, reset, running, starting, status, stop, up
from scythe.stack.engine_build import engine_program, engine_version
from scythe.stack.health import Health
from scythe.stack.paths import PARTS, layout_of
from scythe.stack.ports import is_free
from scythe.stack.state import read_state
from tests.integration.database import query

# The first one may build the engine, which takes minutes.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The data folder that most tests share; each leaves it as it likes."""
    engine_program(print)
    folder = Path(tempfile.mkdtemp(prefix="scythe-stack-", dir="/tmp"))
    yield folder
    reset(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def connection(home: Path) -> StackConnection:
    """The shared stack, started if the test before has stopped it."""
    return up(home, print)


def processes(home: Path) -> dict[str, ProcessRecord]:
    state = read_state(layout_of(home))
    assert state is not None
    return {**state.parts}


def family(record: ProcessRecord) -> list[psutil.Process]:
    leader = psutil.Process(record.pid)
    return [leader, *leader.children(recursive=True)]


def all_gone(members: list[psutil.Process]) -> bool:
    """Return whether all have ended; our own children stay zombies until they are collected."""
    return not any(
        member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in members
    )


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def put(connection: StackConnection, key: str, body: bytes) -> int:
    return request(connection, "PUT", key, body)


def request(connection: StackConnection, method: str, key: str, body: bytes = b"") -> int:
    """Send a signed request and return its status."""
    from botocore.exceptions import ClientError

    env = connection.env
    client = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_DEFAULT_REGION"],
    )
    where = {"Bucket": env["SCYTHE_STORAGE_BUCKET"], "Key": key}
    try:
        if method == "PUT":
            done = client.put_object(**where, Body=body)
        else:
            done = client.get_object(**where)
    except ClientError as error:
        done = error.response
    finally:
        client.close()
    return done["ResponseMetadata"]["HTTPStatusCode"]


def call_api(connection: StackConnection, path: str) -> tuple[int, str]:
    """Ask the engine with the client token."""
    address = urlsplit(connection.api_url)
    client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        token = connection.env["HATCHET_CLIENT_TOKEN"]
        client.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        return answer.status, answer.read().decode()
    finally:
        client.close()


def tenant_of(connection: StackConnection) -> str:
    import base64

    payload = connection.env["HATCHET_CLIENT_TOKEN"].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]


def assert_works(connection: StackConnection) -> None:
    """Assert that key and token are accepted, the token by a look into the database."""
    assert put(connection, "works", b"1") == 200
    code, body = call_api(connection, f"/api/v1/tenants/{tenant_of(connection)}/worker")
    assert code == 200, body


def cli(home: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scythe.cli", "dev", *words, "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_cli(home: Path, *words: str) -> tuple[int, str]:
    with cli(home, *words) as process:
        output, _ = process.communicate(timeout=120)
        return process.returncode, output


def unix_sockets(home: Path) -> list[Path]:
    layout = layout_of(home)
    return list(layout.sockets.iterdir()) if layout.sockets.exists() else []


class TestRunning:
    def test_it_is_found_and_answers(self, home: Path, connection: StackConnection) -> None:
        assert running(home) == connection
        assert_works(connection)
        assert set(connection.env) == {
            "HATCHET_CLIENT_TOKEN",
            "HATCHET_CLIENT_TLS_STRATEGY",
            "HATCHET_CLIENT_HOST_PORT",
            "HATCHET_CLIENT_SERVER_URL",
            "AWS_ENDPOINT_URL_S3",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_DEFAULT_REGION",
            "SCYTHE_STORAGE_BUCKET",
        }
        assert all(connection.env.values())

    def test_the_engine_says_its_version(self, connection: StackConnection) -> None:
        # Another version, such as that of a build without one, sends the SDK down a legacy path.
        assert call_api(connection, "/api/v1/version")[1] == f'{{"version":"{engine_version()}"}}\n'

    def test_asking_is_cheap(self, home: Path, connection: StackConnection) -> None:
        began = time.perf_counter()
        for _ in range(20):
            assert running(home) is not None
        assert (time.perf_counter() - began) / 20 < 0.05

    def test_only_loopback_listens(self, home: Path, connection: StackConnection) -> None:
        listening = [
            socket_of.laddr
            for record in processes(home).values()
            for member in family(record)
            for socket_of in member.net_connections("inet")
            if socket_of.status == psutil.CONN_LISTEN or socket_of.type == socket.SOCK_DGRAM
        ]
        assert len(listening) == 3  # the engine's two, and S3
        assert {address.ip for address in listening} == {"127.0.0.1"}

    def test_secrets_are_private(self, home: Path, connection: StackConnection) -> None:
        state = read_state(layout_of(home))
        assert state is not None
        assert state.keys is not None
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        for file in home.rglob("*"):
            assert stat.S_IMODE(file.lstat().st_mode) & 0o077 == 0, file
        shown = repr(connection) + "".join(
            " ".join(member.cmdline())
            for record in processes(home).values()
            for member in family(record)
        )
        shown += "".join(layout_of(home).log(part).read_text() for part in PARTS)
        for secret in state.keys.all():
            assert secret not in shown

    def test_an_unsigned_request_is_refused(self, connection: StackConnection) -> None:
        address = urlsplit(connection.env["AWS_ENDPOINT_URL_S3"])
        client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        client.request("GET", f"/{connection.env['SCYTHE_STORAGE_BUCKET']}/works")
        assert client.getresponse().status == 403
        client.close()

    def test_the_default_password_is_none(self, connection: StackConnection) -> None:
        # Hatchet's own set-up gives the owner a password that everybody can read in its manual.
        address = urlsplit(connection.api_url)
        client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        body = json.dumps({"email": "admin@example.com", "password": "Admin123!!"})
        client.request("POST", "/api/v1/users/login", body, {"Content-Type": "application/json"})
        assert client.getresponse().status >= 400
        client.close()

    def test_it_has_left_our_terminal(self, home: Path, connection: StackConnection) -> None:
        for record in processes(home).values():
            assert os.getsid(record.pid) != os.getsid(0)
            assert Path(f"/proc/{record.pid}/fd/0").resolve() == Path("/dev/null")

    def test_a_second_up_changes_nothing(self, home: Path, connection: StackConnection) -> None:
        before = processes(home)
        assert up(home) == connection
        assert processes(home) == before

    def test_the_command_shows_it(self, home: Path, connection: StackConnection) -> None:
        code, output = run_cli(home, "status")
        assert code == 0
        assert output.count("running") == 3
        assert connection.api_url in output
        code, output = run_cli(home, "status", "--json")
        assert code == 0
        assert json.loads(output)["health"] == "running"
        assert connection.env["HATCHET_CLIENT_TOKEN"] not in output

    def test_the_environment_is_for_a_shell(self, home: Path, connection: StackConnection) -> None:
        code, output = run_cli(home, "env")
        assert code == 0
        names = list(connection.env)
        shell = output + "printf '%s\\n' " + " ".join(f'"${name}"' for name in names)
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == list(connection.env.values())


class TestDeath:
    @pytest.mark.parametrize("part", PARTS)
    def test_a_killed_part_is_named_and_comes_back(
        self, home: Path, connection: StackConnection, part: str
    ) -> None:
        assert put(connection, f"before-{part}", b"kept") == 200
        os.kill(processes(home)[part].pid, signal.SIGKILL)
        eventually(lambda: running(home) is None)

        found = {shown.name: shown for shown in status(home).parts}
        assert found[part].health is Health.DIED
        assert status(home).health is Health.DIED
        code, output = run_cli(home, "status")
        assert code == 1
        assert f"{part}: died. The end of {found[part].log}" in output

        lines: list[str] = []
        again = up(home, lines.append)
        assert f"{part} has ended; it is started again" in lines
        # The same token: it is still in the database.
        assert again == connection
        assert_works(again)
        assert request(again, "GET", f"before-{part}") == 200

    def test_a_new_engine_has_all_the_work_at_once(
        self, home: Path, connection: StackConnection
    ) -> None:
        # Left to itself, Hatchet waits a minute for the engine that was killed: nothing runs.
        os.kill(processes(home)["engine"].pid, signal.SIGKILL)
        up(home, print)
        for kind in ("Controller", "Scheduler", "TenantWorker"):
            column = "worker" if kind == "TenantWorker" else kind.lower()
            rows = query(home, f'SELECT "id" FROM "{kind}Partition"')
            assert len(rows) == 1, kind
            tenant = f'SELECT "{column}PartitionId" FROM "Tenant" WHERE slug = \'default\''
            assert query(home, tenant) == rows, kind
        assert len(query(home, 'SELECT "id" FROM "Dispatcher"')) == 1

    def test_an_engine_that_dies_while_it_is_waited_for_is_started_again(
        self, home: Path, connection: StackConnection
    ) -> None:
        engine = psutil.Process(processes(home)["engine"].pid)
        written = layout_of(home).state_file.stat().st_mtime_ns
        engine.suspend()  # alive, and it does not answer
        with ThreadPoolExecutor(1) as pool:
            start = pool.submit(up, home, print)
            eventually(lambda: layout_of(home).state_file.stat().st_mtime_ns != written)
            engine.kill()
            assert start.result(120) == connection
        assert_works(connection)

    def test_a_reused_process_number_is_noticed(
        self, home: Path, connection: StackConnection
    ) -> None:
        file = layout_of(home).state_file
        state = json.loads(file.read_text())
        os.kill(state["parts"]["s3"]["pid"], signal.SIGKILL)
        state["parts"]["s3"]["pid"] = os.getpid()
        file.write_text(json.dumps(state))
        assert running(home) is None
        assert_works(up(home, print))
        assert psutil.Process().is_running()


class TestStop:
    def test_nothing_is_left_and_data_survive(
        self, home: Path, connection: StackConnection
    ) -> None:
        assert put(connection, "survives", b"x" * 5000) == 200
        members = [member for record in processes(home).values() for member in family(record)]
        assert stop(home)
        assert all_gone(members)
        assert unix_sockets(home) == []
        assert running(home) is None
        assert run_cli(home, "status")[0] == 3
        assert run_cli(home, "env")[0] == 3
        assert not stop(home)

        began = time.monotonic()
        again = up(home, print)
        assert time.monotonic() - began < 15
        assert again == connection
        assert request(again, "GET", "survives") == 200

    def test_taken_ports_are_replaced(self, home: Path, connection: StackConnection) -> None:
        assert put(connection, "elsewhere", b"kept") == 200
        stop(home)
        names = ("HATCHET_CLIENT_SERVER_URL", "HATCHET_CLIENT_HOST_PORT", "AWS_ENDPOINT_URL_S3")
        others: list[socket.socket] = []
        for name in names:
            port = int(connection.env[name].rpartition(":")[2])
            others.append(socket.create_server(("127.0.0.1", port)))
        try:
            again = up(home, print)
            assert not {connection.env[name] for name in names} & {again.env[n] for n in names}
            assert again.env["HATCHET_CLIENT_TOKEN"] != connection.env["HATCHET_CLIENT_TOKEN"]
            assert_works(again)
            assert request(again, "GET", "elsewhere") == 200
        finally:
            for other in others:
                other.close()

    def test_a_port_that_is_taken_at_the_last_moment(
        self, home: Path, connection: StackConnection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop(home)
        state = read_state(layout_of(home))
        assert state is not None
        # As if they had been taken between the look and the start.
        answers = iter([True] * 3)
        monkeypatch.setattr(starting, "is_free", lambda port: next(answers, None) or is_free(port))
        lines: list[str] = []
        with (
            socket.create_server(("127.0.0.1", state.ports["grpc"])),
            socket.create_server(("127.0.0.1", state.ports["s3"])),
        ):
            assert_works(up(home, lines.append))
        assert "a port of s3 is in use by another program; it gets new ones" in lines

    def test_two_at_once_start_one_stack(self, home: Path, connection: StackConnection) -> None:
        stop(home)
        with cli(home, "up") as first, cli(home, "up") as second:
            outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
            assert [first.returncode, second.returncode] == [0, 0], outputs
        tables = [re.findall(r"running +(\d+)", output) for output in outputs]
        assert len(tables[0]) == 3
        assert tables[0] == tables[1]
        assert "waiting for another" in "".join(outputs)

    def test_ctrl_c_ends_what_the_command_has_started(
        self, home: Path, connection: StackConnection
    ) -> None:
        stop(home)
        with cli(home, "--foreground") as process:
            eventually(lambda: running(home) is not None, 60)
            members = [member for record in processes(home).values() for member in family(record)]
            assert process.stdout is not None
            while "Ctrl-C stops" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            assert process.returncode == 0
        assert all_gone(members)
        assert status(home).health is Health.STOPPED


class TestFailure:
    def test_the_part_is_named_and_nothing_stays(self, home: Path) -> None:
        stop(home)
        key = layout_of(home).engine / "master.key"
        kept = key.read_bytes()
        key.write_bytes(b"not a key")
        try:
            with pytest.raises(StackError) as caught:
                up(home, print)
        finally:
            key.write_bytes(kept)
        message = str(caught.value)
        assert "did not start: engine: it ended with exit code 1" in message
        assert f"The end of {layout_of(home).log('engine')}" in message
        assert "scythe-engine: could not load the configuration" in message
        assert processes(home) == {}
        assert status(home).health is Health.STOPPED
        assert unix_sockets(home) == []

    def test_an_interrupted_start_leaves_nothing(self, home: Path) -> None:
        stop(home)
        with cli(home, "up") as process:
            eventually(lambda: "postgres" in processes(home), 30)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 130, output
        assert processes(home) == {}

    def test_a_killed_start_is_taken_over(self, home: Path) -> None:
        stop(home)
        with cli(home, "up") as process:
            eventually(lambda: {"postgres", "s3"} <= set(processes(home)), 30)
            process.kill()
            process.communicate(timeout=60)
        left = processes(home)
        # As if it had been killed between the start of a process and its note about it.
        file = layout_of(home).state_file
        state = json.loads(file.read_text())
        del state["parts"]["s3"]
        file.write_text(json.dumps(state))
        lines: list[str] = []
        assert_works(up(home, lines.append))
        assert not left["s3"].is_alive()
        assert "processes of an interrupted start were ended" in lines


def test_reset_leaves_nothing() -> None:
    home = Path(tempfile.mkdtemp(prefix="scythe-stack-reset-", dir="/tmp"))
    layout = layout_of(home)
    up(home, print)
    members = [member for record in processes(home).values() for member in family(record)]
    assert run_cli(home, "reset")[0] == 1  # nobody there to ask
    assert running(home) is not None
    assert run_cli(home, "reset", "--yes")[0] == 0
    assert all_gone(members)
    assert not home.exists()
    assert not layout.postgres.exists()
    assert not layout.socket_link.exists()
