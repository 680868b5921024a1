"""The one-node Ray cluster that a worker starts for itself, and that ends with the worker."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scythe.errors import WorkerStartError
from scythe.labels import ScytheWorkerLabel
from scythe.processes.ending import MARK, end_tree, users_of
from scythe.processes.guard import Guard
from scythe_ray.cluster.cluster import Cluster
from scythe_ray.cluster.discovery import OWN_PREFIX, gcs_client, node_watch, reread_configuration
from scythe_ray.cluster.driver import connect, leave, reason
from scythe_ray.cluster.environment import RayEnvironment
from scythe_ray.config.resources import GPU, no_gpu_here, own_resources
from scythe_ray.config.runtime_env import Shipment
from scythe_ray.config.settings import RaySettings

_START_TIMEOUT = 60.0  # seconds; Ray's own limit is 30 s for each of its processes
_GRACE = 2.0
_OBJECT_STORE = 256 * 1024**2  # bytes; leaves return only small records
_LONGEST_FOLDER = 40  # characters; Ray adds up to 66, and a socket's path may have 107
_LOG_LINES = 15
_LOGS = ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out")
logger = logging.getLogger("scythe.ray")


def start_cluster(
    settings: RaySettings, slots: int | None, labels: Mapping[str, str], shipment: Shipment
) -> Cluster:
    """Start a cluster that listens on this machine only and ends with this process.

    Args:
        settings: The settings.
        slots: Its CPUs; None for those of this machine.
        labels: The labels that the worker's flags promise.
        shipment: The code and environment for its processes.

    Raises:
        WorkerStartError: It does not start, or a flag promises a GPU that does not exist.
    """
    options = {**_options(settings, slots, labels), **shipment.options()}
    own = _OwnCluster()
    try:
        info = own.start(options)
    except Exception as error:
        logs = own.end_of_logs()
        own.close()
        raise WorkerStartError(
            f"Ray cannot be started on this machine ({reason(error)}). Check its memory, shared "
            f"memory and disk space, or use executor='local'.{logs}"
        ) from error
    except BaseException:
        own.close()
        raise
    import ray

    return Cluster(
        address=info["gcs_address"],
        version=ray.__version__,
        node_id=info["node_id"],
        session_dir=info["session_dir"],
        is_own=True,
        gcs=gcs_client(info["gcs_address"]),
        leave=leave,
        close=own.close,
        attach_again=lambda: start_cluster(settings, slots, labels, shipment),
        node_is_up=node_watch(info["node_id"]),
        temporary=own.temporary,
        token_path=str(own.token),
        shipped=shipment.folder,
    )


def _options(settings: RaySettings, slots: int | None, labels: Mapping[str, str]) -> dict[str, Any]:
    cpus = slots or os.cpu_count() or 1
    wants_gpu = labels.get(ScytheWorkerLabel.HAS_GPU) == ScytheWorkerLabel.HAS_GPU.yes
    gpus = settings.NUM_GPUS if settings.NUM_GPUS is not None or wants_gpu else 0
    if wants_gpu and (_gpus_here() if gpus is None else gpus) == 0:
        raise no_gpu_here()  # now, because Ray takes seconds to start
    return {
        "num_cpus": cpus,
        "num_gpus": gpus,  # None: all that Ray finds
        "resources": own_resources(labels, settings.RESOURCES, cpus) or None,
        "object_store_memory": _OBJECT_STORE,
        "include_dashboard": False,
    }


def _gpus_here() -> int | None:
    """Return the number of GPUs that Ray would find on this machine; None if unknown."""
    try:
        from ray._private import accelerators

        manager: Any = accelerators.get_accelerator_manager_for_resource(GPU)
        shown = manager.get_current_process_visible_accelerator_ids()
        found = int(manager.get_current_node_num_accelerators())
    except Exception:  # noqa: BLE001 - a private function of Ray; the started cluster will tell
        return None
    return found if shown is None else min(found, len(shown))


class _OwnCluster:
    """Folder, token, guard and processes of the cluster.

    Attributes:
        token: The token file of the cluster.
        temporary: The folder for files of leaves, removed with the cluster; None if the cluster's
            folder is not in the usual place for temporary files, which may be larger.
    """

    def __init__(self) -> None:
        self._environment = RayEnvironment()
        self._mark = f"{os.environ.get(MARK, '')}ray-{uuid.uuid4().hex}."
        self._folder = Path(tempfile.mkdtemp(prefix=OWN_PREFIX, dir=_short_folder()))
        self.token = self._folder / "token"
        self._guard: Guard | None = None
        in_usual_place = self._folder.parent == Path(tempfile.gettempdir())
        self.temporary = str(self._folder) if in_usual_place else None

    def start(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Start it, in the main thread, because it ends with the thread that starts it."""
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        mark = RayEnvironment()
        try:
            # If this process is killed, the guard ends the rest within seconds. The guard does not
            # have this process's mark, so that ending this process leaves it alone.
            mark.set({MARK: "guard"})
            self._guard = Guard(self._mark, str(self._folder), users=True)
            self._environment.for_own_cluster(str(self.token))
            reread_configuration()
            mark.set({MARK: self._mark})  # for Ray's processes only
            return connect(
                _START_TIMEOUT, address="local", _temp_dir=str(self._folder / "r"), **options
            )
        finally:
            mark.restore()

    def close(self) -> None:
        """End it, wait until all its processes are dead, and remove its folder."""
        try:
            leave()
            left = end_tree(users_of(self._folder), _GRACE, mark=self._mark)
            if left:
                logger.error(
                    "Processes %s of the local Ray cluster did not end after SIGKILL.", left
                )
        finally:
            if self._guard is not None:
                self._guard.close()
                self._guard = None
            self._environment.restore()
            shutil.rmtree(self._folder, ignore_errors=True)

    def end_of_logs(self) -> str:
        """Return the last lines of the logs that may explain a failed start."""
        parts: list[str] = []
        for name in _LOGS:
            file = self._folder / "r" / "session_latest" / "logs" / name
            try:
                lines = file.read_text(errors="replace").rstrip().splitlines()
            except OSError:
                continue
            if lines:
                parts.append("\n".join([f"{name}:", *lines[-_LOG_LINES:]]))
        return "\n" + "\n".join(parts) if parts else ""


def _short_folder() -> str | None:
    """Return the parent of the folder; Ray's sockets need a short ASCII path."""
    default = tempfile.gettempdir()
    fits = default.isascii() and len(default) + len(OWN_PREFIX) + 8 + len("/r") < _LONGEST_FOLDER
    return None if fits or not os.access("/tmp", os.W_OK) else "/tmp"  # noqa: S108 - mkdtemp makes it safe
