"""Requests to pause a run: an object in its bucket, which stays until the run is resumed."""

from __future__ import annotations

import json
import time

from scythe.storage.layout import RunLayout
from scythe.storage.store import Store


def put_pause(store: Store, layout: RunLayout) -> None:
    """Ask the workers to start no more leaves of a run."""
    store.put_bytes(layout.pause_request, json.dumps({"at": time.time()}).encode())


def remove_pause(store: Store, layout: RunLayout) -> None:
    """Let the workers start leaves of a run again."""
    store.delete(layout.pause_request)


def is_paused(store: Store, layout: RunLayout) -> bool:
    """Return whether a run is paused."""
    return store.find_bytes(layout.pause_request) is not None
