"""A test bed of real Ray nodes on one machine: each can be killed, cut off and given back.

A node has a network, an address, processes, mounts and a host name of its own (namespaces of the
kernel, for which one must be root). The nodes are joined by a bridge in one more namespace, where
a forwarder leads to the local stack: neither Ray nor the stack can be reached from elsewhere.
All namespaces have no name: they end with their first process, which ends with this one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.acceptance.running import wait_until
from tests.chaos.forward import SLOW_DOWN, Forwarder
from tests.chaos.nodes import GATEWAY, HERE, Node, end_process, run_ip

_OWN = ("SCYTHE_", "RAY_", "HATCHET_", "AWS_")
# As docs/clusters.md has them: a node that is gone is missed within seconds.
HEALTH = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}


def why_not() -> str | None:
    """Return why a bed cannot be made here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    missing = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed (Debian: iproute2, util-linux)"
    tried = subprocess.run(
        ["unshare", "--net", "true"], capture_output=True, text=True, check=False
    )
    return f"namespaces cannot be made: {tried.stderr.strip()}" if tried.returncode else None


class Bed:
    """Nodes that see each other and the local stack, and nothing else. Close it by `with`.

    Args:
        stack_env: The environment of the running local stack.

    Attributes:
        folder: Where the nodes have their files.
        env: The environment of what runs on a node.
    """

    def __init__(self, stack_env: Mapping[str, str]) -> None:
        self._stack_env = stack_env
        self._exit = ExitStack()
        self.nodes: dict[str, Node] = {}

    def __enter__(self) -> Self:
        with ExitStack() as exit_stack:
            self.folder = Path(
                tempfile.mkdtemp(prefix="sb-", dir="/tmp")
            )  # Ray's sockets are below
            exit_stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            (self.folder / "token").touch(mode=0o600)
            (self.folder / "token").write_text(secrets.token_hex(32))
            self._lan = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
            exit_stack.callback(end_process, self._lan)
            mine = Path("/proc/self/ns/net").readlink()
            namespace = Path(f"/proc/{self._lan.pid}/ns/net")
            wait_until(lambda: namespace.readlink() != mine, "a network of its own", 10)
            self.lan("link", "set", "lo", "up")
            self.lan("link", "add", "name", "br0", "type", "bridge")
            self.lan("addr", "add", f"{GATEWAY}/24", "dev", "br0")
            self.lan("link", "set", "br0", "up")
            self.env = self._environment()
            self.forwarder = Forwarder(namespace, GATEWAY, list(self._ports.values()))
            exit_stack.callback(self.forwarder.close)
            self._exit = exit_stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            for log in sorted(self.folder.glob("*/*.log")):
                lines = log.read_text(errors="replace").splitlines()[-60:]
                print(f"--- {log.parent.name}: {log.name}", *lines, sep="\n")
        self._exit.close()

    def add(self, name: str) -> Node:
        """Add a machine; Ray is not started there."""
        node = Node(name, len(self.nodes) + 1, self.folder / name, self.env, self.lan)
        self._exit.callback(node.close)
        node.join()
        self.nodes[name] = node
        return node

    def lan(self, *command: str) -> None:
        """Run `ip` where the bridge is."""
        run_ip(self._lan.pid, *command)

    def fail_s3(self, answer: str = SLOW_DOWN) -> None:
        """Let each request of a node to S3 fail; see `Forwarder.fail`."""
        self.forwarder.fail(self._ports["AWS_ENDPOINT_URL_S3"], answer)

    def heal_s3(self) -> None:
        """Let them through again."""
        self.forwarder.heal(self._ports["AWS_ENDPOINT_URL_S3"])

    @property
    def _ports(self) -> dict[str, int]:
        found = {
            name: int(value.rpartition(":")[2]) if "//" not in value else urlsplit(value).port or 0
            for name, value in self._stack_env.items()
            if name in _ADDRESSES
        }
        assert set(found) == set(_ADDRESSES)
        return found

    def _environment(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        ports = self._ports
        return {
            **plain,
            **self._stack_env,
            **{name: form.format(f"{GATEWAY}:{ports[name]}") for name, form in _ADDRESSES.items()},
            **HEALTH,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(HERE.parent.parent),
        }


_ADDRESSES = {
    "HATCHET_CLIENT_HOST_PORT": "{}",
    "HATCHET_CLIENT_SERVER_URL": "http://{}",
    "AWS_ENDPOINT_URL_S3": "http://{}",
}
