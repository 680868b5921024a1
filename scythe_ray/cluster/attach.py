"""Attaches to the Ray cluster that the settings name, or starts one."""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Mapping

from scythe.errors import PlaceAwayError, WorkerStartError
from scythe_ray.cluster.cluster import Cluster
from scythe_ray.cluster.discovery import (
    Head,
    answers,
    gcs_client,
    host_and_port,
    node_watch,
    probe,
    ray_of_this_node,
    raylets_here,
    wait_for_answer,
)
from scythe_ray.cluster.driver import connect, leave, reason
from scythe_ray.cluster.environment import LOOPBACK_ONLY, RayEnvironment
from scythe_ray.cluster.own_cluster import start_cluster
from scythe_ray.config.runtime_env import Shipment, read_runtime_env
from scythe_ray.config.settings import RaySettings

_JOIN_WAIT = 5.0
_LEAST = 5.0  # seconds that each step gets at least, whatever the steps before it took


def open_cluster(settings: RaySettings, slots: int | None, labels: Mapping[str, str]) -> Cluster:
    """Attach to the cluster that the settings name, or this node's, or start one.

    Args:
        settings: The settings.
        slots: The CPUs of a cluster that is started; None for those of this machine.
        labels: The labels that the worker's flags promise.

    Raises:
        WorkerStartError: No cluster can be used; the message says what to do.
    """
    address = settings.address
    timeout = settings.CONNECT_TIMEOUT.total_seconds()
    shipment = read_runtime_env(settings.RUNTIME_ENV)
    if address == "local":
        return start_cluster(settings, slots, labels, shipment)
    environment = RayEnvironment()
    environment.for_foreign_cluster()
    try:
        head = _head(address, settings.address_source, timeout)
        if head is not None:
            return _attach(head, timeout, environment, shipment)
    except BaseException:
        environment.restore()
        raise
    environment.restore()
    return start_cluster(settings, slots, labels, shipment)


def join_cluster(settings: RaySettings, shared: Mapping[str, str]) -> Cluster:
    """Attach to the cluster that another process of this worker found or started.

    Args:
        settings: The settings.
        shared: The data of that process, see `Cluster.shared`.

    Raises:
        WorkerStartError: The cluster is gone.
    """
    timeout = settings.CONNECT_TIMEOUT.total_seconds()
    address = shared["address"]
    if not answers(address):
        raise WorkerStartError(f"The Ray head at {address}, which the worker uses, is gone.")
    environment = RayEnvironment()
    environment.for_foreign_cluster()
    if "token_path" in shared:
        environment.for_token(shared["token_path"])
    try:
        shipment = read_runtime_env(settings.RUNTIME_ENV)
        cluster = _attach(probe(address, timeout), timeout, environment, shipment)
    except BaseException:
        environment.restore()
        raise
    cluster.temporary = shared.get("temporary")
    cluster.token_path = shared.get("token_path")
    return cluster


def _head(address: str | None, source: str, timeout: float) -> Head | None:
    """Return the head to attach to; None if there is none and none is required."""
    if address and address != "auto":
        host, port = host_and_port(address, source)
        full = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        started = time.monotonic()
        wait_for_answer(full, source, timeout)
        return probe(full, max(_LEAST, timeout - (time.monotonic() - started)))
    head = ray_of_this_node(timeout) if raylets_here() else None
    if head is None and address == "auto":
        raise WorkerStartError(
            f"{source}=auto, but no Ray that a worker can use runs on this node. Start it with "
            "`ray start --head` or `ray start --address=<head>`, or unset the variable to use a "
            "local one."
        )
    return head


def _attach(head: Head, timeout: float, environment: RayEnvironment, shipment: Shipment) -> Cluster:
    check_versions(head)
    # Use the spelling of the cluster's nodes, because Ray replaces `localhost` by another address.
    address = _address_of_node_here(head, timeout)
    if address.startswith("127."):
        environment.set({LOOPBACK_ONLY: "0"})
    try:
        namespace = f"scythe-{uuid.uuid4().hex}"
        info = connect(timeout, address=address, namespace=namespace, **shipment.options())
    except Exception as error:
        leave()
        raise PlaceAwayError(
            f"Cannot attach to the Ray cluster at {address} within {timeout:g} s "
            f"({reason(error)}). See the logs in the session folder of its nodes, and raise "
            "SCYTHE_RAY_CONNECT_TIMEOUT if it is only slow."
        ) from error

    def close() -> None:
        try:
            leave()
        finally:
            environment.restore()

    def attach_again() -> Cluster:
        if not answers(address):
            raise PlaceAwayError(f"No Ray head answers at {address}. Start it again there.")
        return _attach(probe(address, timeout), timeout, environment, shipment)

    return Cluster(
        address=address,
        version=head.version,
        node_id=info["node_id"],
        session_dir=info["session_dir"],
        is_own=False,
        gcs=gcs_client(address),
        leave=leave,
        close=close,
        attach_again=attach_again,
        node_is_up=node_watch(info["node_id"]),
        shipped=shipment.folder,
    )


def check_versions(head: Head) -> None:
    """Raise unless the versions of this process and the cluster match.

    Raises:
        WorkerStartError: Ray or Python has another version there.
    """
    import ray

    here = platform.python_version()
    level = os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL")
    parts = 2 if level == "minor" else 3
    if head.version != ray.__version__:
        raise WorkerStartError(
            f"The Ray cluster at {head.address} runs Ray {head.version}, this worker has "
            f"{ray.__version__}. Install `ray=={head.version}` here, or the worker's version there."
        )
    if head.python.split(".")[:parts] != here.split(".")[:parts]:
        raise WorkerStartError(
            f"The Ray cluster at {head.address} runs Python {head.python}, this worker {here}. Use "
            "the same version on all nodes (RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor accepts "
            "a different last number)."
        )


def _address_of_node_here(head: Head, timeout: float) -> str:
    """Return the head's address as the Ray node on this machine spells it.

    Raises:
        WorkerStartError: The cluster has no Ray node on this machine, and a driver needs one.
    """
    client = gcs_client(head.address)
    deadline = time.monotonic() + min(timeout, _JOIN_WAIT)
    while True:
        members = {node_id.hex() for node_id in client.get_all_node_info(timeout=_LEAST)}
        for raylet in raylets_here():
            if raylet.node_id in members:
                return raylet.address
        if time.monotonic() > deadline:
            raise PlaceAwayError(
                f"This machine is not a node of the Ray cluster at {head.address}, and a worker "
                f"must run on one. Run `ray start --address={head.address}` here, or start the "
                "worker on a node of the cluster."
            )
        time.sleep(0.5)
