"""Requests to stop a run, and the lock for writing its final tables."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Literal

from pydantic import BaseModel, Field

from scythe.errors import StorageError
from scythe.messages import LeafRecord
from scythe.outcomes import FailureKind, LeafFailure
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store

_MARK_SECONDS = 30.0  # lifetime of a mark that is not renewed
_RENEW_SECONDS = 8.0
logger = logging.getLogger(__name__)


class RunStopped(Exception):  # noqa: N818 - not an error of the node
    """The run ends before all leaves have run; its nodes stop working."""


class StopRequest(BaseModel):
    """A request to end a run before all of its leaves have run.

    Attributes:
        state: The final state of the run.
        kind: The failure kind of the leaves that have not ended.
        message: Why, as a sentence without a full stop.
        at: Time of the request, in seconds since 1970.
        grace: Seconds for which running leaves may continue.
    """

    state: Literal["cancelled", "failed"]
    kind: FailureKind
    message: str
    at: float = Field(default_factory=time.time)
    grace: float = 0.0

    @property
    def record(self) -> LeafRecord:
        """The outcome of a leaf that has not ended."""
        name = "RunLimit" if self.kind is FailureKind.RUN_LIMIT else "RunStopped"
        return LeafRecord(LeafFailure(self.kind, name, self.message), 0, None)


def read_stop(store: Store, layout: RunLayout) -> StopRequest | None:
    """Return the request to stop a run, or None."""
    data = store.find_bytes(layout.stop_request)
    return StopRequest.model_validate_json(data) if data else None


def check_goes_on(store: Store, layout: RunLayout) -> None:
    """Raise `RunStopped` if a run is to stop, so that nothing more starts."""
    stop = read_stop(store, layout)
    if stop is not None:
        raise RunStopped(stop.message)


def put_stop(store: Store, layout: RunLayout, request: StopRequest) -> StopRequest:
    """Ask a run to stop. Return the request that applies, which is the first one."""
    known = read_stop(store, layout)
    if known is None:
        store.put_bytes(layout.stop_request, request.model_dump_json().encode())
    return known or request


@contextmanager
def ending_right(store: Store, layout: RunLayout, is_over: Callable[[], bool]) -> Generator[bool]:
    """Hold the lock for writing the final tables of a run.

    The lock is a mark in the bucket. A process that sees the mark of another one waits. Each
    process writes its mark before it looks for others, so at most one sees itself alone. A mark
    that is not renewed expires after 30 s.

    Args:
        store: The bucket of the run.
        layout: Its keys.
        is_over: Returns whether the run has ended.

    Yields:
        Whether to write the tables; if not, they exist already.
    """
    mark = f"{layout.endings}{uuid.uuid4().hex}"
    while not _is_alone(store, layout, mark):
        store.delete(mark)
        if is_over():
            yield False
            return
        time.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - so that two processes do not collide again
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(store, mark, ended), daemon=True)
    renewing.start()
    try:
        yield not is_over()
    finally:
        ended.set()
        renewing.join()
        store.delete(mark)


def is_being_ended(store: Store, layout: RunLayout) -> bool:
    """Return whether a process is writing the final tables of a run."""
    return any(_counts(store, key) for key in list(store.list_keys(layout.endings)))


def _is_alone(store: Store, layout: RunLayout, mark: str) -> bool:
    _put_mark(store, mark)
    others = [key for key in list(store.list_keys(layout.endings)) if key != mark]
    return not any(_counts(store, key) for key in others)


def _counts(store: Store, mark: str) -> bool:
    until = store.find_bytes(mark)
    return bool(until) and float(until) > time.time()


def _put_mark(store: Store, mark: str) -> None:
    store.put_bytes(mark, f"{time.time() + _MARK_SECONDS}".encode())


def _renew(store: Store, mark: str, ended: threading.Event) -> None:
    while not ended.wait(_RENEW_SECONDS):
        with suppress(StorageError):
            _put_mark(store, mark)
