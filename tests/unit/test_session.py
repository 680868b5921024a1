"""One run of tests in several workers, on tests made here, without the local stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from tests.acceptance.running import wait_until

ROOT = Path(__file__).parent.parent.parent
TESTS = """
    import os, time, pathlib
    import pytest

    folder = pathlib.Path(os.environ["FOLDER_OF_THE_TEST"])

    def meet(mine, other):
        (folder / mine).write_text(str(os.getpid()))
        deadline = time.monotonic() + 60
        while not (folder / other).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @pytest.fixture
    def ends():
        yield
        time.sleep(0.3)
        (folder / f"{pathlib.Path(__file__).stem}-ended").touch()
"""
OPTIONS = ("-p", "tests.conftest", "-p", "no:cacheprovider", "-q", "--dist", "loadfile")


def start(
    folder: Path, *bodies: str, options: tuple[str, ...] = ("-n", "2"), **variables: str
) -> subprocess.Popen[str]:
    """Run pytest on a file of tests for each body."""
    files: list[str] = []
    for number, body in enumerate(bodies):
        file = folder / f"test_{number}.py"
        file.write_text(textwrap.dedent(TESTS) + textwrap.dedent(body))
        files.append(str(file))
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", f"--rootdir={folder}", *OPTIONS, *options, *files],
        cwd=ROOT,
        env={**os.environ, "FOLDER_OF_THE_TEST": str(folder), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *bodies: str) -> tuple[int, str]:
    """Run pytest to its end; return its exit code and what it printed."""
    with start(folder, *bodies) as process:
        output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_two_files_run_at_one_time_and_one_failure_fails_all(tmp_path: Path) -> None:
    code, output = run(
        tmp_path,
        'def test_meets(): meet("a", "b")\ndef test_of_one(): assert "test_0" in __file__',
        'def test_meets(): meet("b", "a")\ndef test_of_two(): assert "nowhere" in __file__',
    )
    assert code == 1, output
    assert "1 failed, 3 passed" in output
    assert "test_of_two" in output


def test_a_worker_that_crashes_fails_its_test_and_leaves_no_folder(tmp_path: Path) -> None:
    body = """
    def test_dies():
        session = pathlib.Path(os.environ["SCYTHE_TEST_SESSION"])
        (folder / "session").write_text(str(session))
        (session / "stack-x").mkdir()
        os._exit(7)

    def test_next():
        pass
    """
    code, output = run(tmp_path, body)
    assert code == 1, output
    assert "1 passed" in output
    assert "node down" in output
    assert not Path((tmp_path / "session").read_text()).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_in_order(tmp_path: Path, number: signal.Signals) -> None:
    waits = 'def test_waits(ends): meet("{}", "never")'
    process = start(tmp_path, waits.format("a"), waits.format("b"))
    try:
        met = [tmp_path / name for name in ("a", "b")]
        wait_until(lambda: all(file.exists() and file.read_text() for file in met), "both run")
        workers = [psutil.Process(int(file.read_text())) for file in met]
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(10)
    assert process.returncode == 2, output
    assert [(tmp_path / f"test_{one}-ended").exists() for one in (0, 1)] == [True, True], output
    assert not any(worker.is_running() for worker in workers)


def test_a_test_that_leaves_the_environment_changed_fails_and_harms_no_other(
    tmp_path: Path,
) -> None:
    body = """
    def test_leaves():
        os.environ["SCYTHE_LEFT"] = "x"
        os.environ.pop("HOME")
        os.chdir("/tmp")

    def test_restores(monkeypatch, tmp_path):
        monkeypatch.setenv("SCYTHE_LEFT", "y")
        monkeypatch.chdir(tmp_path)

    def test_sees_nothing_of_it():
        assert "SCYTHE_LEFT" not in os.environ
        assert "HOME" in os.environ
        assert os.getcwd() != "/tmp"
    """
    code, output = run(tmp_path, body)
    assert code == 1, output
    assert "3 passed, 1 error" in output
    left = "HOME, SCYTHE_LEFT, the working directory"
    assert f"the test left these changed: {left}" in output


def test_variables_and_the_stack_of_who_runs_the_tests_are_hidden(tmp_path: Path) -> None:
    body = """
    def test_bare():
        mine = [name for name in os.environ if name.startswith(("AWS_", "HATCHET_", "RAY_"))]
        assert mine == []
        assert not pathlib.Path(os.environ["SCYTHE_DEV_HOME"]).exists()
        assert "SCYTHE_WORKER_SLOTS" not in os.environ
    """
    mine = {"AWS_PROFILE": "lab", "HATCHET_CLIENT_TOKEN": "mine", "RAY_ADDRESS": "auto"}
    mine |= {"SCYTHE_WORKER_SLOTS": "9", "SCYTHE_DEV_HOME": str(tmp_path)}
    for options in (("-n", "1"), ("-n", "0")):
        with start(tmp_path, body, options=options, **mine) as process:
            output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
