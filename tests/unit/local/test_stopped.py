"""Results that arrived while a worker was stopped are read before limits are checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["local", "ray"])
def test_leaves_that_ended_while_their_worker_was_stopped_are_done(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.local.stopped_worker", name],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "SCYTHE_RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done"] * 2
