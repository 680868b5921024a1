"""Attacks on the local stack by another user of the machine.

Each attack is tried on an unprotected target too, where it must succeed: else it proves nothing.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from scythe.errors import StackError
from scythe.stack import StackConnection, engine_build, reset, stop, up
from scythe.stack.account import database_account
from scythe.stack.paths import layout_of
from scythe.stack.state import Secrets, read_state
from tests.integration.test_stack import assert_works, family, processes, put, request

pytestmark = pytest.mark.timeout(1800)

STRANGER = 54_321
PRECIOUS = b"results of years"


@pytest.fixture(scope="module", autouse=True)
def root() -> None:
    """Only root can become another user; where that is expected, the attacks must not be missed."""
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("the attacks need root, to be another user")
        pytest.skip("the attacks need root, to be another user")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    engine_build.engine_program(print)
    folder = Path(tempfile.mkdtemp(prefix="scythe-attacked-", dir="/tmp"))
    yield folder
    reset(folder)


@pytest.fixture
def connection(home: Path) -> StackConnection:
    found = up(home, print)
    assert put(found, "precious", PRECIOUS) == 200
    return found


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can read."""
    folder = Path(tempfile.mkdtemp(prefix="scythe-open-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def attack(code: str, *arguments: object, uid: int = STRANGER) -> Any:
    """Run a function body as another user and return what it returns."""
    body = "\n".join(f"    {line}" for line in code.strip().splitlines())
    program = (
        "import encodings.idna, http.client, json, os, socket, stat, sys\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        f"def attack(arguments):\n{body}\n"
        "print(json.dumps(attack(json.loads(sys.argv[1]))))"
    )
    given = json.dumps([str(one) if isinstance(one, Path) else one for one in arguments])
    done = subprocess.run(
        [sys.executable, "-c", program, given],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def secrets_of(home: Path) -> Secrets:
    state = read_state(layout_of(home))
    assert state is not None
    assert state.keys is not None
    return state.keys


def shows(text: str, home: Path) -> bool:
    """Return whether a text has a secret of the stack, or what is in its bucket."""
    keys = secrets_of(home)
    return any(secret in text for secret in (*keys.all(), PRECIOUS.decode()))


def listening(home: Path) -> dict[int, str]:
    """Return the ports on which the stack listens, and whose they are."""
    return {
        connection.laddr.port: part
        for part, record in processes(home).items()
        for member in family(record)
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


GRAB = """
port, found = arguments[0], {}
paths = ("/", "/scythe", "/scythe?list-type=2", "/scythe/precious", "/precious", "/metrics",
    "/debug/pprof/", "/dir/assign", "/dir/status", "/cluster/status", "/api/v1/tenants",
    "/api/v1/users/current", "/api/v1/users", "/health", "/admin", "/list-users")
requests = [("GET", path) for path in paths] + [("PUT", "/scythe/planted"), ("DELETE",
    "/scythe/precious"), ("POST", "/scythe?delete"), ("PATCH", "/create-user")]
for method, path in requests:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        client.request(method, path, b"planted" if method != "GET" else None)
        answer = client.getresponse()
        found[method + " " + path] = [answer.status, answer.read().decode("utf-8", "replace")]
    except (OSError, http.client.HTTPException) as error:
        found[method + " " + path] = [0, repr(error)]
    client.close()
return found
"""


class TestPorts:
    def test_none_gives_or_takes_anything_without_a_key(
        self, home: Path, connection: StackConnection
    ) -> None:
        ports = listening(home)
        assert sorted(ports.values()) == ["engine", "engine", "s3"]
        for port in ports:
            answers = attack(GRAB, port)
            assert not shows(json.dumps(answers), home)
            for name, (status, _) in answers.items():
                if not name.startswith("GET"):
                    assert not 200 <= status < 300, (ports[port], name, status)
        assert request(connection, "GET", "precious") == 200
        assert request(connection, "GET", "planted") == 404

    def test_an_unprotected_server_is_read(
        self, home: Path, connection: StackConnection, open_folder: Path
    ) -> None:
        (open_folder / "precious").write_bytes(PRECIOUS)
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(open_folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            assert shows(json.dumps(attack(GRAB, server.server_port)), home)
            server.shutdown()

    def test_the_engine_asks_for_the_token(self, connection: StackConnection) -> None:
        address = connection.env["HATCHET_CLIENT_HOST_PORT"]
        token = connection.env["HATCHET_CLIENT_TOKEN"]
        methods = (
            "/Dispatcher/Register",
            "/EventsService/Push",
            "/WorkflowService/TriggerWorkflow",
        )

        def answer(method: str, given: str | None) -> grpc.StatusCode:
            metadata = [("authorization", f"bearer {given}")] if given else []
            with grpc.insecure_channel(address) as channel:
                call: Any = channel.unary_unary(method)
                try:
                    call(b"", metadata=metadata, timeout=10)
                except grpc.RpcError as error:
                    return error.code()  # pyright: ignore
            return grpc.StatusCode.OK

        for method in methods:
            for given in (None, "x", token[:-4] + "AAAA"):
                assert answer(method, given) is grpc.StatusCode.UNAUTHENTICATED
            assert answer(method, token) is not grpc.StatusCode.UNAUTHENTICATED

    def test_the_database_has_no_port_and_a_closed_socket(
        self, home: Path, connection: StackConnection, open_folder: Path
    ) -> None:
        knock = """
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(arguments[0])
except OSError as error:
    return error.strerror
return "connected"
"""
        path = layout_of(home).sockets / ".s.PGSQL.5432"
        assert attack(knock, path) == "Permission denied"
        unprotected = open_folder / "socket"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(unprotected))
            unprotected.chmod(0o777)
            server.listen(1)
            assert attack(knock, unprotected) == "connected"


LOOK = """
found = ""
for pid in arguments:
    for name in ("cmdline", "environ", "maps", "fd/0", "fd/1", "fd/2"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                found += file.read().decode("utf-8", "replace")
        except OSError:
            pass
return found
"""


class TestProcesses:
    def test_they_show_no_secret(self, home: Path, connection: StackConnection) -> None:
        members = [member for one in processes(home).values() for member in family(one)]
        seen = attack(LOOK, *(member.pid for member in members))
        assert "scythe-engine" in seen
        assert not shows(seen, home)

    def test_one_that_was_given_a_secret_shows_it(
        self, home: Path, connection: StackConnection
    ) -> None:
        argv = [sys.executable, "-c", "input()", secrets_of(home).secret_key]
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
            assert shows(attack(LOOK, process.pid), home)
            process.communicate(b"\n")


READ = """
found = []
for path in arguments:
    try:
        with open(path, "rb") as file:
            found.append([path, file.read(100_000).decode("utf-8", "replace")])
    except OSError:
        pass
return found
"""


class TestFiles:
    def test_nobody_else_can_read_one(self, home: Path, connection: StackConnection) -> None:
        layout = layout_of(home)
        engine = engine_build.engine_program(print)
        roots = (layout.home, layout.postgres, engine.parent)
        files = [file for folder in roots for file in folder.rglob("*") if file.is_file()]
        assert len(files) > 100
        assert attack(READ, *files) == []

    def test_one_in_an_open_folder_is_read(
        self, home: Path, connection: StackConnection, open_folder: Path
    ) -> None:
        copy = open_folder / "state.json"
        shutil.copy(layout_of(home).state_file, copy)
        copy.chmod(0o644)
        assert shows(json.dumps(attack(READ, copy)), home)

    @pytest.mark.parametrize("owner", [STRANGER, 0])
    def test_a_folder_of_somebody_else_is_no_stack(self, owner: int, open_folder: Path) -> None:
        planted = open_folder / "planted"
        (planted / "s3").mkdir(parents=True)
        (planted / "s3" / "thesis.tex").write_text("years of work")
        (planted / ".scythe-stack").touch()
        for path in (planted, *planted.rglob("*")):
            os.chown(path, owner, owner)
        if owner == 0:  # our own: the same folder is removed
            reset(planted)
            assert not planted.exists()
            return
        for action in (up, stop, reset):
            with pytest.raises(StackError, match="belongs to another user"):
                action(planted)
        assert (planted / "s3" / "thesis.tex").exists()

    @pytest.mark.parametrize("owner", [STRANGER, 0])
    def test_an_engine_of_somebody_else_is_not_run(
        self, owner: int, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SCYTHE_CACHE_DIR", str(open_folder))
        program = engine_build._place()
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        for path in open_folder.rglob("*"):
            os.chown(path, owner, owner)
        if owner == 0:
            assert engine_build.engine_program(print) == program
            return
        with pytest.raises(StackError, match="other users"):
            engine_build.engine_program(print)


PLANT = """
folder, victims = arguments
done = []
for name, victim in victims.items():
    try:
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            os.rename(path, path + ".kept")
        os.symlink(victim, path)
        done.append(name)
    except OSError:
        pass
return done
"""


class TestThePostgresAccount:
    """The account that runs PostgreSQL for root plants links where root will write."""

    def plant(self, folder: Path, victims: dict[str, str]) -> list[str]:
        account = database_account()
        assert account is not None
        return attack(PLANT, folder, victims, uid=account.uid)

    @pytest.fixture
    def victims(self, open_folder: Path) -> dict[str, Path]:
        (open_folder / "folder").mkdir(mode=0o755)
        (open_folder / "file").write_text("# of root")
        return {"folder": open_folder / "folder", "file": open_folder / "file"}

    def facts(self, victims: dict[str, Path]) -> list[Any]:
        found = [
            (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in victims.values()
        ]
        return [*found, victims["file"].read_text(), list(victims["folder"].iterdir())]

    def test_links_lead_root_nowhere(
        self, home: Path, connection: StackConnection, victims: dict[str, Path]
    ) -> None:
        stop(home)
        layout = layout_of(home)
        before = self.facts(victims)
        folder, file = str(victims["folder"]), str(victims["file"])
        # Which folders are its own is not the account's to decide.
        assert (
            self.plant(layout.postgres, {"run": folder, "data": folder, "data.new": folder}) == []
        )
        in_data = {"postgresql.conf": file, "postgresql.auto.conf": file, "postmaster.pid": file}
        assert self.plant(layout.data, in_data) == list(in_data)
        try:
            assert_works(up(home, print))
            stop(home)
            self.plant(layout.data, {"postmaster.pid": folder, "PG_VERSION": file})
            with pytest.raises(StackError, match=r"PG_VERSION cannot be read.*scythe dev reset"):
                up(home, print)
        finally:
            for kept in layout.data.glob("*.kept"):
                kept.rename(kept.with_suffix(""))
        assert self.facts(victims) == before
        assert_works(up(home, print))

    def test_a_pipe_does_not_stop_root(self, home: Path, connection: StackConnection) -> None:
        stop(home)
        version = layout_of(home).data / "PG_VERSION"
        content = version.read_text()
        version.unlink()
        os.mkfifo(version)
        try:
            with pytest.raises(StackError, match="PG_VERSION|made by PostgreSQL"):
                up(home, print)
        finally:
            version.unlink()
            version.write_text(content)
            account = database_account()
            assert account is not None
            os.chown(version, account.uid, account.gid)
        assert_works(up(home, print))

    def test_they_lead_a_careless_root_astray(
        self, open_folder: Path, victims: dict[str, Path]
    ) -> None:
        account = database_account()
        assert account is not None
        folder = open_folder / "given"
        folder.mkdir()
        os.chown(folder, account.uid, account.gid)
        before = self.facts(victims)
        assert self.plant(folder, {name: str(path) for name, path in victims.items()})
        (folder / "folder").chmod(0o700)
        os.chown(folder / "folder", account.uid, account.gid)
        (folder / "file").write_text("what the account wants")
        assert self.facts(victims) != before

    def test_a_folder_of_before_is_taken_back(
        self, home: Path, connection: StackConnection
    ) -> None:
        stop(home)
        layout, account = layout_of(home), database_account()
        assert account is not None
        os.chown(layout.postgres, account.uid, account.gid)  # as it was
        assert_works(up(home, print))
        assert layout.postgres.stat().st_uid == 0


def test_names_in_tmp_are_in_nobodys_way(home: Path, connection: StackConnection) -> None:
    state = read_state(layout_of(home))
    assert state is not None
    names = [
        f"/tmp/seaweedfs-{part}-grpc-{port}.sock"
        for part in ("master", "volume", "filer", "s3")
        for port in state.ports.values()
    ]
    plant = "return [open(name, 'w').close() for name in arguments]"
    attack(plant, *names)
    try:
        stop(home)
        assert_works(up(home, print))
    finally:
        for name in names:
            Path(name).unlink()
