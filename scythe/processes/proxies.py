"""Keeps loopback connections away from a configured proxy."""

from __future__ import annotations

import os

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def keep_loopback_direct() -> None:
    """Exclude loopback addresses from the proxy, in this process and its children.

    Changes nothing if no proxy is set.
    """
    if not any(name.lower() in _PROXIES and value for name, value in os.environ.items()):
        return
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    known = [part.strip() for part in given.split(",") if part.strip()]
    if "*" not in known:
        text = ",".join(dict.fromkeys([*known, *_LOOPBACK]))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = text
