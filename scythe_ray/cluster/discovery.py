"""Finds the Ray that runs on this machine, and probes the address of a Ray head.

Ray's own `"auto"` would take any cluster that it finds, even one that is gone, and then try for
minutes.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from scythe.errors import PlaceAwayError, WorkerStartError
from scythe.processes.identity import birth_of
from scythe_ray.cluster.environment import AUTH_MODE, TOKEN_VARIABLES

OWN_PREFIX = "scythe-ray-"
DEFAULT_PORT = 6379
_TCP_TIMEOUT = 2.0
_POLL = 0.5
T = TypeVar("T")
logger = logging.getLogger("scythe.ray")


@dataclass(frozen=True, slots=True)
class Raylet:
    """A Ray node on this machine, as its process describes it.

    Attributes:
        node_id: Ray's id of the node.
        address: `host:port` of its cluster's head.
        temp_dir: Its folder for sessions.
        user: The user that it belongs to.
        process: Its process.
    """

    node_id: str
    address: str
    temp_dir: str
    user: int
    process: Any

    @property
    def is_own(self) -> bool:
        """Whether a Scythe worker started it for itself, so that it ends with that worker."""
        return Path(self.temp_dir).parent.name.startswith(OWN_PREFIX)


@dataclass(frozen=True, slots=True)
class Head:
    """A Ray head that answered.

    Attributes:
        address: `host:port`.
        version: Ray's version there.
        python: Python's version there.
        started_by_program: Whether a program started it with `ray.init()`, and will end it.
    """

    address: str
    version: str
    python: str
    started_by_program: bool


def raylets_here() -> list[Raylet]:
    """Return the Ray nodes on this machine."""
    import psutil

    found: list[Raylet] = []
    for process in psutil.process_iter():
        try:
            if process.name() != "raylet":
                continue
            user = process.uids().real
            flags = dict(
                part[2:].split("=", 1)
                for part in process.cmdline()
                if part.startswith("--") and "=" in part
            )
        except (psutil.Error, OSError):
            continue
        node_id = flags.get("node_id", "")
        address = flags.get("gcs-address", "")
        if node_id and address:
            found.append(Raylet(node_id, address, flags.get("temp_dir", ""), user, process))
    return found


def node_watch(node_id: str) -> Callable[[], bool]:
    """Return a function that tells whether a Ray node of this machine is running."""
    pid = next((one.process.pid for one in raylets_here() if one.node_id == node_id), None)
    birth = None if pid is None else birth_of(pid)
    return lambda: pid is None or (birth is not None and birth_of(pid) == birth)


def ray_of_this_node(timeout: float) -> Head | None:
    """Return the head of the cluster that this machine is a node of, or None if there is none.

    It must be this user's or root's: whoever runs it gets the leaves and the bucket's keys. What
    programs started for themselves does not count; neither does what no longer answers.

    Raises:
        WorkerStartError: There are several, or the only one cannot be used.
    """
    trusted = (os.geteuid(), 0)
    raylets = [one for one in raylets_here() if one.user in trusted and not one.is_own]
    heads: dict[str, Head] = {}
    for address in dict.fromkeys(one.address for one in raylets):
        if not answers(address):
            logger.info("The Ray at %s, of a node of this machine, does not answer.", address)
            continue
        head = probe(address, timeout)
        if head.started_by_program:
            logger.info(
                "The Ray at %s belongs to a program that runs here; it is left alone.", address
            )
            continue
        heads[address] = head
    current = {_current_cluster(one.temp_dir) for one in raylets} & heads.keys()
    chosen = current if len(current) == 1 else heads.keys()
    if len(chosen) > 1:
        raise WorkerStartError(
            f"This machine is a node of several Ray clusters ({', '.join(sorted(heads))}). Set "
            "SCYTHE_RAY_ADDRESS to the one to use."
        )
    return heads[next(iter(chosen))] if chosen else None


def _current_cluster(temp_dir: str) -> str:
    try:
        return (Path(temp_dir) / "ray_current_cluster").read_text().strip()
    except OSError:
        return ""


def host_and_port(address: str, source: str) -> tuple[str, int]:
    """Split an address.

    Raises:
        WorkerStartError: A worker cannot attach to such an address.
    """
    text = address.removeprefix("http://")
    if "://" in text:
        raise WorkerStartError(
            f"{source}={address} is an address of Ray Client, through which leaves cannot be "
            f"run. Use `host:port` of the head (usually port {DEFAULT_PORT}) on a machine that is "
            "a node of the cluster."
        )
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or (text if not host and not port.isdigit() else "")
    if not host or (port != text and not port.isdigit()):
        raise WorkerStartError(
            f"{source}={address} is not an address. Use `host:port` of the Ray head, "
            f"`host` (port {DEFAULT_PORT}), `auto` or `local`."
        )
    return host, int(port) if port.isdigit() else DEFAULT_PORT


def answers(address: str) -> bool:
    """Return whether something accepts connections at an address."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _TCP_TIMEOUT).close()
    except (OSError, ValueError):
        return False
    return True


def wait_for_answer(address: str, source: str, timeout: float) -> None:
    """Wait until something accepts connections at an address.

    Raises:
        PlaceAwayError: Nothing accepted a connection in time.
    """
    deadline = time.monotonic() + timeout
    while not answers(address):
        if time.monotonic() > deadline:
            raise PlaceAwayError(
                f"No Ray head answers at {address} ({source}) within {timeout:g} s. Check the "
                "address and the firewall, start the head with `ray start --head`, raise "
                "SCYTHE_RAY_CONNECT_TIMEOUT, or unset the variable to use this node's Ray or a "
                "local one."
            )
        time.sleep(_POLL)


def probe(address: str, timeout: float) -> Head:
    """Query a Ray head for its versions.

    Raises:
        WorkerStartError: It refuses this process's token, or does not answer like a Ray head.
    """
    _settle_authentication()
    from ray import exceptions

    try:
        data = within(timeout, lambda: _metadata(address), f"Ray head at {address}")
    except exceptions.AuthenticationError as error:
        mode = os.environ.get(AUTH_MODE, "not set")
        raise WorkerStartError(
            f"The Ray head at {address} refuses this worker's authentication token ({AUTH_MODE} is "
            f"{mode}). Put the cluster's token into ~/.ray/auth_token, or name its file in "
            f"RAY_AUTH_TOKEN_PATH, and set {AUTH_MODE}=token; or set SCYTHE_RAY_ADDRESS=local for "
            "a cluster of this worker's own."
        ) from error
    except TimeoutError as error:
        raise PlaceAwayError(
            f"{address} accepts connections but does not answer as a Ray head within {timeout:g} "
            "s. Either the head hangs or is cut off, or the port is wrong (use that of the head, "
            f"usually {DEFAULT_PORT}, not the dashboard's 8265 or Ray Client's 10001)."
        ) from error
    except (exceptions.RayError, RuntimeError, ValueError) as error:
        raise PlaceAwayError(
            f"{address} accepts connections but does not answer as a Ray head ({error}). Use the "
            f"port of the head (usually {DEFAULT_PORT}), not the dashboard's 8265 or Ray "
            "Client's 10001."
        ) from error
    return Head(
        address=address,
        version=str(data.get("ray_version", "?")),
        python=str(data.get("python_version", "?")),
        started_by_program=bool(data.get("ray_init_cluster")),
    )


def gcs_client(address: str) -> Any:
    """Return Ray's client of a head that answers.

    The client is private to Ray, but `ray.init` would try for minutes instead.
    """
    from ray import _raylet

    library: Any = _raylet
    return library.GcsClient(address=address)


def _metadata(address: str) -> dict[str, Any]:
    data = gcs_client(address).internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster")
    return json.loads(data) if data else {}


def _settle_authentication() -> None:
    """Use a token if there is one, which a cluster without authentication ignores.

    Raises:
        WorkerStartError: A token is required and missing; Ray would abort this process.
    """
    mode = os.environ.get(AUTH_MODE)
    has_token = _has_token()
    if mode == "token" and not has_token:
        raise WorkerStartError(
            f"{AUTH_MODE}=token is set, but there is no token. Put it into ~/.ray/auth_token, or "
            f"name its file in RAY_AUTH_TOKEN_PATH."
        )
    if mode is None and has_token:
        os.environ[AUTH_MODE] = "token"
    reread_configuration()


def _has_token() -> bool:
    text, path = (os.environ.get(name) for name in TOKEN_VARIABLES)
    file = Path(path).expanduser() if path else Path.home() / ".ray" / "auth_token"
    try:
        return bool(text) or file.stat().st_size > 0
    except OSError:
        return False


def reread_configuration() -> None:
    """Make Ray read its variables again, because it may have been imported before they were set."""
    from ray import _raylet

    config = getattr(_raylet, "Config", None)
    if config is not None:
        config.initialize("")
    loader = getattr(_raylet, "AuthenticationTokenLoader", None)
    if loader is not None:
        loader.instance().reset_cache()


def within(timeout: float, work: Callable[[], T], what: str) -> T:
    """Run blocking work with a deadline.

    Raises:
        TimeoutError: It took too long and continues in its thread.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def do() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below
            failure.append(error)

    thread = threading.Thread(target=do, name="scythe-ray-wait", daemon=True)
    thread.start()
    thread.join(timeout)
    if failure:
        raise failure[0]
    if not result:
        raise TimeoutError(f"{what}: no answer within {timeout:g} s")
    return result[0]
