"""Sets the environment variables of Ray while the executor is open.

Most are read by Ray's C++ part when it first needs them, some when `ray` is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

# At "0" a node's address is 127.0.0.1, on Linux too, and everything listens there only.
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
AUTH_MODE = "RAY_AUTH_MODE"
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # With `uv run`, Ray would zip the working directory and start its workers through `uv run`.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
    # The result of a cancelled leaf is never awaited, which is no error.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Ray gives a dead head 5 s to take the last notes for its dashboard, and ends this process if
    # another one answers meanwhile.
    "RAY_task_events_shutdown_flush_timeout_ms": "200",
}
_OWN_CLUSTER = {
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    LOOPBACK_ONLY: "0",
    # Without a dashboard these events are useless, and they cost a millisecond per leaf.
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    # No port, because the autoscaler's monitor would show its metrics to every user of the machine.
    "AUTOSCALER_METRIC_PORT": "-1",
    # Ray would scan its log files ten times a second, for nobody.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
}
_FOREIGN_CLUSTER = {
    # Otherwise Ray ends this process without an exception 60 s after it lost the head.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
    # Detect a silent partition within half a minute instead of seven minutes.
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "20000",
}


class RayEnvironment:
    """Reversible changes of this process's environment. The user's own values stay."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    def for_own_cluster(self, token_path: str) -> None:
        """Set the variables of an own cluster, including token authentication.

        Args:
            token_path: The file that holds the token.
        """
        self.set({**_ALWAYS, **_OWN_CLUSTER}, keep=True)
        self.for_token(token_path)

    def for_token(self, token_path: str) -> None:
        """Set the variables for a cluster that a worker started, which is on loopback."""
        # The user's token and mode are not meant for this private cluster.
        self.remove("RAY_AUTH_TOKEN")
        self.set({AUTH_MODE: "token", "RAY_AUTH_TOKEN_PATH": token_path, LOOPBACK_ONLY: "0"})

    def for_foreign_cluster(self) -> None:
        """Set the variables for a cluster that others started."""
        self.set({**_ALWAYS, **_FOREIGN_CLUSTER}, keep=True)
        self._remember(AUTH_MODE)  # set where a token is found

    def set(self, values: Mapping[str, str], *, keep: bool = False) -> None:
        """Set variables; with `keep`, only those that are not set."""
        for name, value in values.items():
            if not (keep and name in os.environ):
                self._remember(name)
                os.environ[name] = value

    def remove(self, name: str) -> None:
        """Unset a variable."""
        self._remember(name)
        os.environ.pop(name, None)

    def restore(self) -> None:
        """Revert all changes."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()

    def _remember(self, name: str) -> None:
        self._before.setdefault(name, os.environ.get(name))
