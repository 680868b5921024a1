"""`scythe worker`: what it starts, and when it starts it again. The workers are plain scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from scythe.cli import main
from scythe.commands.reloading import ProjectFiles
from scythe.provenance.project import Module
from tests.acceptance.running import wait_until

SCRIPT = """
import os, signal, sys
import values

def stop(number, frame):
    print(f"stopped by {number}", flush=True)
    sys.exit(7)

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print(__name__, values.VALUE, os.environ.get("SCYTHE_WORKER_EXECUTOR"), os.getpid(), flush=True)
while True:
    signal.pause()
"""
EXPERIMENTS = '''
from scythe.base import ExperimentInputSpec, ExperimentOutputSpec
from scythe.registry import ExperimentRegistry

@ExperimentRegistry.Register()
def twice(spec: ExperimentInputSpec) -> ExperimentOutputSpec:
    """Do nothing."""
    return ExperimentOutputSpec()
'''
START = "\nfrom scythe.worker import ScytheWorkerConfig\n\nScytheWorkerConfig(slots=3).start()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(SCRIPT)
    (tmp_path / "values.py").write_text("VALUE = 'one'\n")
    return tmp_path


def bare_env() -> dict[str, str]:
    names = ("HATCHET_", "SCYTHE_", "AWS_")
    return {k: v for k, v in os.environ.items() if not k.startswith(names)}


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scythe.cli", "worker", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={**bare_env(), "SCYTHE_DEV_HOME": str(folder / "stack")},
    )


@contextmanager
def started(*words: str, folder: Path, log: Path) -> Generator[subprocess.Popen[bytes]]:
    # Tests that run in the background ignore Ctrl-C; what they start should not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "scythe.cli", "worker", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=bare_env(),
        )
    signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        alive = process.poll() is None
        children = psutil.Process(process.pid).children(recursive=True) if alive else []
        process.kill()
        process.wait(10)
        for child in children:
            if child.is_running():
                child.kill()


def wait_for(log: Path, *texts: str) -> None:
    wait_until(
        lambda: all(text in log.read_text() for text in texts), f"{texts}: {log.read_text()}", 90
    )


def pid_of(log: Path, value: str) -> int:
    line = next(one for one in log.read_text().splitlines() if f"__main__ {value} " in one)
    return int(line.split()[-1])


def test_a_script_runs_as_if_python_had_started_it(folder: Path) -> None:
    log = folder / "log"
    with started("--executor", "ray", folder=folder, log=log) as process:
        wait_for(log, "__main__ one ray ")
        assert pid_of(log, "one") == process.pid
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 7


def test_json_names_what_is_started(folder: Path) -> None:
    (folder / "main.py").write_text("print('served')\n")
    first, second = command("--json", folder=folder).stdout.splitlines()
    assert json.loads(first)["command"] == [sys.executable, "main.py"]
    assert second == "served"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["other.py"], "There is no script other.py"),
        (["nothing.here"], "There is no script and no module 'nothing.here' here"),
        (["not a module"], "There is no script and no module 'not a module' here"),
        (["--executor", "cloud"], "--executor must be one of local, ray, got 'cloud'."),
    ],
)
def test_wrong_use(
    words: list[str],
    text: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(folder)
    assert main(["worker", *words]) == 2
    shown = capsys.readouterr()
    assert (shown.out, text in shown.err, len(shown.err.splitlines())) == ("", True, 1)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("experiments", {"experiments.py": EXPERIMENTS}),
        ("own", {"own.py": EXPERIMENTS + START}),
        ("package", {"package/__init__.py": "", "package/__main__.py": EXPERIMENTS + START}),
    ],
)
def test_a_module_is_served(name: str, files: dict[str, str], folder: Path) -> None:
    """It gets as far as to look for an engine: there are experiments to serve."""
    for file, text in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    done = command(name, folder=folder)
    assert done.returncode == 1
    assert "HATCHET_CLIENT_TOKEN is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_without_experiments_is_no_worker(folder: Path) -> None:
    done = command("values", folder=folder)
    assert (done.returncode, "No experiment is registered" in done.stderr) == (1, True)


def test_a_change_starts_it_again(folder: Path) -> None:
    log = folder / "log"
    with started("main.py", "--reload", folder=folder, log=log) as process:
        wait_for(log, "__main__ one ")
        os.utime(folder / "values.py")  # nothing in it has changed
        (folder / "unrelated.py").write_text("A = 1\n")
        (folder / "main.py").write_text(f"{SCRIPT}\n# a comment\n")
        wait_for(log, "reload: main.py changed; restarting the worker.", "stopped by 15")
        wait_until(lambda: log.read_text().count("__main__ one") == 2, "it was started again")
        (folder / "values.py").write_text("VALUE = 'two'\n")
        wait_for(log, "reload: values.py changed", "__main__ two ")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 7
        text = log.read_text()
        assert text.splitlines()[-1] == "stopped by 2"
        assert text.count("changed") == 2


def test_a_worker_that_fails_starts_again_once_it_is_mended(folder: Path) -> None:
    log = folder / "log"
    (folder / "values.py").write_text("from missing import VALUE\n")
    with started("--reload", folder=folder, log=log) as process:
        wait_for(log, "No module named 'missing'", "The worker has ended with exit code 1.")
        (folder / "missing.py").write_text("VALUE = 'new'\n")
        wait_for(log, "missing.py changed; starting the worker again.", "__main__ new ")
        (folder / "values.py").write_text("VALUE = (\n")
        wait_until(lambda: log.read_text().count("exit code 1") == 2, "the second error")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1


def test_nothing_is_left_of_a_killed_one(folder: Path) -> None:
    log = folder / "log"
    with started("--reload", folder=folder, log=log) as process:
        wait_for(log, "__main__ one ")
        worker = psutil.Process(pid_of(log, "one"))
        process.kill()
        process.wait(10)
        wait_until(lambda: not worker.is_running(), "the worker has ended")


def test_a_file_that_is_being_written_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    files = ProjectFiles(Module("main", str(folder / "main.py")))
    path = folder / "values.py"
    path.write_text("")
    assert files.changed() == []  # it may not be whole
    path.write_text("VALUE = 'three'\n")
    assert files.changed() == []
    assert files.changed() == [str(path)]
    assert files.changed() == []
    path.unlink()
    assert files.changed() == []
    assert files.changed() == [str(path)]
