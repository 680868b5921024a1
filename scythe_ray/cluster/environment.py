"""The variables that Ray reads from the environment, set for as long as the executor is open.

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
    # With `uv run`, Ray would zip the working directory and start its workers by `uv run` as well.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
    # A leaf that was cancelled has a result that nobody awaits: no reason for an error message.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Ray gives a dead head 5 s to take the last notes for its dashboard, and ends this process if
    # another one answers meanwhile.
    "RAY_task_events_shutdown_flush_timeout_ms": "200",
}
_OWN_CLUSTER = {
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    LOOPBACK_ONLY: "0",
    # There is no dashboard to show them, and they cost a millisecond for each leaf.
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    # No port: the autoscaler's monitor would show its metrics to every user of the machine.
    "AUTOSCALER_METRIC_PORT": "-1",
    # Nor does anybody read the log files that Ray would look through ten times a second.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
}
_FOREIGN_CLUSTER = {
    # Without it Ray ends this process, with no exception, 60 s after it lost the head.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
    # A silent partition is felt within half a minute instead of seven.
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "20000",
}


class RayEnvironment:
    """Changes of this process's environment that can be taken back. The user's own values stay."""

    def __init__(self) -> None:
        self._before: dict[str, str | None] = {}

    def for_own_cluster(self, token_path: str) -> None:
        """Set what a cluster of this process's own needs, token authentication included.

        Args:
            token_path: The file that holds the token.
        """
        self.set({**_ALWAYS, **_OWN_CLUSTER}, keep=True)
        self.for_token(token_path)

    def for_token(self, token_path: str) -> None:
        """Set what a process needs of a cluster that a worker started, which is on loopback."""
        # The cluster is private: neither the user's token nor their mode is meant for it.
        self.remove("RAY_AUTH_TOKEN")
        self.set({AUTH_MODE: "token", "RAY_AUTH_TOKEN_PATH": token_path, LOOPBACK_ONLY: "0"})

    def for_foreign_cluster(self) -> None:
        """Set what attaching to a cluster needs."""
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
        """Take all changes back."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()

    def _remember(self, name: str) -> None:
        self._before.setdefault(name, os.environ.get(name))
