"""A machine of the test bed, and a worker on it."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.running import wait_until

HERE = Path(__file__).parent
_NET = "10.77.0"
GATEWAY = f"{_NET}.254"
_HEAD_PORT = 6379


class Node:
    """A machine of the bed.

    Args:
        name: Its host name.
        number: The last number of its address.
        folder: Where it has its files.
        env: The environment of what runs there.
        lan: Runs `ip` where the bridge is.
    """

    def __init__(
        self,
        name: str,
        number: int,
        folder: Path,
        env: Mapping[str, str],
        lan: Callable[..., None],
    ) -> None:
        self.name, self.address, self.folder = name, f"{_NET}.{number}", folder
        self._link = f"to-{name}"
        self._env, self._lan = env, lan
        (self.folder / "tmp").mkdir(parents=True)
        self._kinds = ["--net", "--uts", "--pid", "--mount"]
        apart = ["unshare", *self._kinds, "--mount-proc", "--kill-child", "--fork"]
        with (folder / "node.log").open("wb") as errors:
            self._outer = subprocess.Popen(
                [*apart, sys.executable, str(HERE / "node_init.py"), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._outer.stdout is not None
        self._outer.stdout.readline()
        self._init = psutil.Process(self._outer.pid).children()[0].pid
        self._there = ["nsenter", "-t", str(self._init), *self._kinds]
        self._space = Path(f"/proc/{self._init}/ns/pid").readlink()
        self._started: list[subprocess.Popen[bytes]] = []
        self.ray: subprocess.Popen[bytes] | None = None
        self.is_alive = True

    def join(self) -> None:
        """Connect it to the others."""
        pid = str(self._init)
        self._lan(
            *("link", "add", "name", self._link, "type", "veth"),
            *("peer", "name", "eth0", "netns", pid),
        )
        self._lan("link", "set", self._link, "master", "br0", "up")
        run_ip(self._init, "link", "set", "lo", "up")
        run_ip(self._init, "addr", "add", f"{self.address}/24", "dev", "eth0")
        run_ip(self._init, "link", "set", "eth0", "up")
        run_ip(self._init, "route", "add", "default", "via", GATEWAY)

    def start(
        self, *command: str, log: str, folder: Path = HERE, **variables: str
    ) -> subprocess.Popen[bytes]:
        """Run a command there; its output goes to a log."""
        env = {**self._env, "TMPDIR": str(self.folder / "tmp"), **variables}
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                [
                    "nsenter",
                    "-t",
                    str(self._init),
                    *self._kinds,
                    "env",
                    "-C",
                    str(folder),
                    *command,
                ],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def start_ray(self, *options: str, head: Node | None = None, **variables: str) -> None:
        """Start Ray there, as the head unless another one is named, and wait until it runs."""
        address = f"{head.address if head else self.address}:{_HEAD_PORT}"
        where = [f"--address={address}"] if head else ["--head", f"--port={_HEAD_PORT}"]
        if head is None:
            where.append("--include-dashboard=false")
        log = self.folder / "ray.log"
        before = log.stat().st_size if log.exists() else 0
        self.ray = self.start(
            *(str(Path(sys.executable).with_name("ray")), "start", *where, "--block"),
            *(f"--node-ip-address={self.address}", f"--temp-dir={self.folder}/ray"),
            *("--object-store-memory=100000000", "--disable-usage-stats", *options),
            log="ray.log",
            **variables,
        )
        process, up = self.ray, b"Ray runtime started"
        wait_until(
            lambda: up in log.read_bytes()[before:] or process.poll() is not None,
            f"Ray runs on {self.name}",
        )
        assert process.poll() is None, log.read_text()

    def start_worker(
        self, log: str = "worker.log", app: Path = HERE / "app", **variables: str
    ) -> Worker:
        """Run `python main.py` there. Wait for `Worker.wait_ready` before it is used."""
        return Worker(self, log, app, variables)

    def kill(self) -> None:
        """Take its power: all its processes die at once."""
        self.is_alive = False
        os.kill(self._init, signal.SIGKILL)
        for process in [*self._started, self._outer]:
            process.wait(20)

    def cut(self) -> None:
        """Pull its network cable."""
        self._lan("link", "set", self._link, "down")

    def restore(self) -> None:
        """Plug it in again."""
        self._lan("link", "set", self._link, "up")

    def close(self) -> None:
        """End it, if it was not killed."""
        if self.is_alive:
            self.kill()
        end_process(self._outer)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that run there, its first one left out."""
        found: list[psutil.Process] = []
        for pid in psutil.pids():
            try:
                there = Path(f"/proc/{pid}/ns/pid").readlink() == self._space
                process = psutil.Process(pid)
                if there and pid != self._init and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def find(self, test: Callable[[Sequence[str]], Any]) -> list[psutil.Process]:
        """Return the processes there whose command line passes a test."""
        found: list[psutil.Process] = []
        for process in self.processes():
            try:
                line = process.cmdline()
            except psutil.Error:
                continue
            if line and test(line):
                found.append(process)
        return found

    def program(self, name: str) -> psutil.Process:
        """Return the process of a program."""
        return next(one for one in self.processes() if one.name() == name)

    def has(self, name: str) -> bool:
        """Return whether a program runs there."""
        return any(one.name() == name for one in self.processes())

    def end_ray(self) -> None:
        """End `ray start` there in an orderly way."""
        assert self.ray is not None
        for process in psutil.Process(self.ray.pid).children():
            process.terminate()
        self.ray.wait(40)

    def running_leaves(self) -> list[psutil.Process]:
        """Return the Ray processes that run a leaf."""
        return self.find(lambda line: line[0].startswith("ray::chaos_"))

    def wait_leaf(self) -> psutil.Process:
        """Wait until a leaf runs there, and return its process."""
        found: list[psutil.Process] = []

        def runs() -> bool:
            found[:] = self.running_leaves()
            return bool(found)

        wait_until(runs, f"a leaf runs on {self.name}", 20)
        return found[0]

    def ray_id(self) -> str:
        """Return Ray's id of the node."""
        line = " ".join(self.program("raylet").cmdline())
        found = re.search(r"--node_id=(\w+)", line)
        assert found, line
        return found[1]


class Worker:
    """A `python main.py` on a node."""

    def __init__(self, node: Node, log: str, app: Path, variables: Mapping[str, str]) -> None:
        self.node, self._log, self._variables = node, node.folder / log, variables
        self._app = app
        self.name = f"chaos-{node.name}-{secrets.token_hex(3)}"
        self._popen = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._from = self._log.stat().st_size if self._log.exists() else 0
        return self.node.start(
            *(sys.executable, "main.py"),
            folder=self._app,
            log=self._log.name,
            SCYTHE_WORKER_NAME=self.name,
            SCYTHE_WORKER_SHUTDOWN_TIMEOUT="10s",
            **self._variables,
        )

    @property
    def text(self) -> str:
        """Its output since it was last started."""
        return self._log.read_bytes()[self._from :].decode(errors="replace")

    def wait_ready(self) -> None:
        """Wait until it takes leaves."""
        wait_until(
            lambda: " is ready." in self.text or self._popen.poll() is not None,
            f"the worker on {self.node.name} is ready",
            120,
        )
        assert self._popen.poll() is None, self.text

    def part(self, role: str) -> psutil.Process:
        """Return the process of a part, as the log last named it."""
        lines = re.findall(rf"processes .*?\b{role} (\d+)", self.text)
        lines += re.findall(
            rf"The {role} worker process \([^)]*, pid (\d+)\) is ready again", self.text
        )
        for process in self.node.processes():
            with suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                ids = re.search(r"^NSpid:(.*)$", status, re.MULTILINE)
                if ids and ids[1].split()[-1] == lines[-1]:  # as the node itself counts
                    return process
        raise AssertionError(f"no process {lines[-1]} on {self.node.name}")

    def kill(self) -> None:
        """Kill all its processes at once."""
        main = psutil.Process(self._popen.pid)
        family = main.children(recursive=True)
        for process in family:
            process.kill()
        self._popen.wait(10)

    def start_again(self) -> None:
        """Start it, as a service manager does."""
        self._popen = self._start()
        self.wait_ready()

    def stop(self) -> None:
        """Stop it in an orderly way."""
        for process in psutil.Process(self._popen.pid).children():
            process.send_signal(signal.SIGTERM)
        assert self._popen.wait(60) == 0, self.text


def run_ip(pid: int, *command: str) -> None:
    """Run `ip` in the network of a process."""
    there = ["nsenter", "-t", str(pid), "--net", "ip", *command]
    done = subprocess.run(there, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(command)}: {done.stderr}"


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Close its pipes and end it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        process.kill()
    process.wait(10)
