"""The folder of a run that is about to start, which no two allocations may share."""

from __future__ import annotations

import math
import uuid
from typing import Protocol, Self, TypeVar

from scythe.errors import StorageError
from scythe.processes.identity import description_of_self, has_died
from scythe.settings import ScytheStorageSettings
from scythe.storage.layout import RunLayout
from scythe.storage.store import Store

_CLAIM_TRIES = 60
_CLAIM_SECONDS = 600.0  # for which a claim from another machine counts


class RunFolder(Protocol):
    """The folder of a run that is about to start."""

    @property
    def experiment_id(self) -> str:
        """`<name>/<version>/<datetime>`."""
        ...

    @property
    def layout(self) -> RunLayout:
        """The keys of the run."""
        ...

    @property
    def storage_settings(self) -> ScytheStorageSettings:
        """The bucket of the run."""
        ...

    def a_second_later(self) -> Self:
        """Return the folder of a run that is allocated one second later."""
        ...


FolderT = TypeVar("FolderT", bound=RunFolder)


def claim(store: Store, run: FolderT) -> FolderT:
    """Take the run's folder for this allocation, or that of a later second.

    Whoever sees another claim, or anything in the folder, goes on to the next second: of two that
    claim at one time at most one sees itself alone, as each writes before it looks. A claim is
    released when the folder has a manifest, so the folder is looked at last.

    Raises:
        StorageError: No folder is free.
    """
    for _ in range(_CLAIM_TRIES):
        layout = run.layout
        mark = f"{layout.claims}{uuid.uuid4()}"
        try:
            store.put_bytes(mark, description_of_self().encode())
            alone = list(store.list_keys(layout.claims)) == [mark]
            if alone and next(store.list_keys(layout.prefix), None) is None:
                return run
        except BaseException:
            store.delete(mark)
            raise
        store.delete(mark)
        run = run.a_second_later()
    raise StorageError(
        f"No free folder for the run {run.experiment_id} within the next {_CLAIM_TRIES} s: "
        "allocate again in a minute."
    )


def release(store: Store, run: RunFolder) -> None:
    """Remove the claim: the run has started, and its manifest keeps the folder taken."""
    for key in list(store.list_keys(run.layout.claims)):
        store.delete(key)


def minutes_claimed(store: Store, layout: RunLayout) -> int:
    """Return for how many minutes a run still counts as being allocated; 0 if it is not.

    A claim counts until its process has died, or for ten minutes where that cannot be seen: it is
    on another machine.
    """
    left = 0.0
    for key in list(store.list_keys(layout.claims)):
        age, data = store.age(key), store.find_bytes(key)
        if age is not None and not has_died((data or b"").decode()):
            left = max(left, _CLAIM_SECONDS - max(0.0, age))  # the store rounds to seconds
    return math.ceil(left / 60)


def discard(store: Store, run: RunFolder) -> None:
    """Remove all that was stored of a run that was not started, and its claim.

    Nothing else is in its folder, which was empty when it was claimed.
    """
    for key in list(store.list_keys(run.layout.prefix)):
        store.delete(key)
    release(store, run)
