"""A Ray cluster that tests attach to, with nodes that come and go."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

SCRIPT = Path(__file__).parent / "integration" / "ray_nodes.py"


class RayBed:
    """The cluster, which this process did not start itself.

    Args:
        process: What `ray_nodes.py` runs in.
        token: The file with the cluster's token.
    """

    def __init__(self, process: subprocess.Popen[bytes], token: Path) -> None:
        self._process, self.token = process, token
        self.address: str = self._answer()

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a worker attaches to it."""
        return {"SCYTHE_RAY_ADDRESS": self.address, "RAY_AUTH_TOKEN_PATH": str(self.token)}

    def add(self, **node: Any) -> str:
        """Start a node, and return its id when it is alive."""
        return self._do({"add": node})

    def kill(self, node_id: str) -> None:
        """Kill all processes of a node."""
        self._do({"kill": node_id})

    def _do(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster has ended"
        return json.loads(line)


@contextmanager
def ray_bed(**head: Any) -> Iterator[RayBed]:
    """Start a cluster of one node, and end it with all its nodes."""
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp") as folder:
        token = Path(folder, "token")
        token.write_text(secrets.token_hex(32))
        sessions = Path(folder, "ray")
        sessions.mkdir()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on loopback
            # A node that is killed is missed soon.
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "1000",
            "RAY_health_check_failure_threshold": "2",
        }
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(sessions), json.dumps(head)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
        )
        try:
            yield RayBed(process, token)
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.communicate(timeout=60)
            for member in psutil.wait_procs(family, timeout=10)[1]:
                member.kill()
