"""Run a worker of a test app as a user would, and end it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psutil
import pytest

APPS = Path(__file__).parent / "apps"


def load_app(name: str, script: str = "main.py") -> ModuleType:
    """Import the script of an app, so that its experiments can be allocated here."""
    path = APPS / name / script
    spec = importlib.util.spec_from_file_location(f"app_{name}", path)
    assert spec and spec.loader
    if spec.name in sys.modules:
        return sys.modules[spec.name]
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def pointed_at(stack_env: Mapping[str, str], **more: str) -> Generator[None]:
    """Let this process, and its Hatchet client, use a running stack, for more than one test."""
    from scythe.engine.client import client

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**stack_env, **more}.items():
            patch.setenv(name, value)
        client.cache_clear()
        yield
        client.cache_clear()


@contextmanager
def worker(name: str, log: Path, **variables: str) -> Generator[psutil.Process]:
    """Run `python main.py` in the folder of an app; SIGTERM it at the end.

    Nothing that it started may be left then.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "main.py"],
            cwd=APPS / name,
            # A Ray that somebody runs on this machine is not for the tests.
            env={**os.environ, "SCYTHE_RAY_ADDRESS": "local", **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    handle = psutil.Process(process.pid)
    seen: set[psutil.Process] = set()
    try:
        yield handle
        seen |= set(handle.children(recursive=True)) if handle.is_running() else set()
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
        assert code == 0, f"the worker ended with {code}:\n{log.read_text()}"
        gone, alive = psutil.wait_procs(list(seen), timeout=10)
        assert not alive, f"left over: {[item.cmdline() for item in alive]}"
    except BaseException:
        print(log.read_text())
        raise
    finally:
        if process.poll() is None:
            for item in [*handle.children(recursive=True), handle]:
                item.kill()
            process.wait(timeout=10)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
