"""A step of the wall clock (NTP, a suspended machine) does nothing to leaves on Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]


def _why_not() -> str | None:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a mount namespace needs Linux and root"
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "mount namespaces cannot be made here"


@pytest.mark.skipif(_why_not() is not None, reason=_why_not() or "")
def test_limits_and_cancels_reach_leaves_and_no_leaf_is_lost(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable]
    done = subprocess.run(
        [*command, "-m", "tests.integration.clock_step", str(tmp_path)],
        cwd=HERE,
        env={**os.environ, "SCYTHE_RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {"kind": "timeout", "alive": [], "lost": []}
